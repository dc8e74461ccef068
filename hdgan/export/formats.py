"""The formats of exported programs: how a traced program becomes a file, and how the file runs."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from hdgan.config.bounds import Precision
from hdgan.errors import ConfigError, HdganError
from hdgan.export.programs import ModelProgram

FormatName = Literal["onnx", "pt2", "aoti"]
Run = Callable[[Mapping[str, Tensor]], Tensor]
"""A program that has been read from its file: from its inputs by name to its output."""
METADATA = "hdgan.json"
"""The extra file of a .pt2 of torch.export that holds the metadata."""
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_INDUCTOR: dict[str, Any] = {"cpp.simdlen": 1, "realize_opcount_threshold": 6}
"""Options of AOTInductor. Its search for loops to vectorise simplifies the index of every padded tensor, and it inlines
chains of integers again for each use. Where sizes are free, both take minutes without these options."""


@dataclass(frozen=True)
class Format:
    """A format of programs."""

    suffix: str
    require: Callable[[torch.device, Precision], None] | None
    """Raises ConfigError where this machine cannot write, or not check, such a file."""
    write: Callable[[ExportedProgram, Path, Mapping[str, str], ModelProgram], None]
    """Writes a traced program, its metadata, and the names of the inputs, output and sizes of what was traced."""
    read: Callable[[Path], tuple[Run, dict[str, str]]]
    """Reads the program and its metadata as a user would."""
    least_side: Callable[[int], int] = lambda multiple: 3
    """Pixels a side of the smallest maps that a program takes, if its network pads them to this multiple."""
    checks_sides: bool = False
    """Whether the program has to refuse smaller maps, since its runtime does not and would make wrong pictures."""


def _require_onnx(device: torch.device, precision: Precision) -> None:
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}: install them with `pip install {' '.join(_ONNX_PACKAGES)}`"
        )
    if device.type != "cpu":
        raise ConfigError("--device has no effect on an onnx file, which runs on any: leave it out")
    if precision == "bfloat16":
        raise ConfigError(
            "--precision bfloat16 cannot be checked in an onnx file, since onnxruntime has no bfloat16 convolution for "
            "CPUs: give float16, or another --format"
        )


def _write_onnx(traced: ExportedProgram, path: Path, metadata: Mapping[str, str], program: ModelProgram) -> None:
    sizes = [{dim: name for dim, name in enumerate(spec.shape) if isinstance(name, str)} for spec in program.inputs]
    with _silent():
        written = torch.onnx.export(
            traced,
            dynamo=True,
            external_data=False,
            input_names=[spec.name for spec in program.inputs],
            output_names=[program.output.name],
            dynamic_shapes=tuple(sizes),
            verbose=False,
        )
    assert written is not None
    written.model.metadata_props.update(metadata)
    written.save(path, external_data=False)


def _read_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(output)

    return run, dict(session.get_modelmeta().custom_metadata_map)


def _write_pt2(traced: ExportedProgram, path: Path, metadata: Mapping[str, str], program: ModelProgram) -> None:
    with _silent():
        torch.export.save(traced, path, extra_files={METADATA: json.dumps(dict(metadata), indent=2)})


def _read_pt2(path: Path) -> tuple[Run, dict[str, str]]:
    extra: dict[str, Any] = {METADATA: ""}
    with _silent():
        program = torch.export.load(path, extra_files=extra).module()
    return lambda inputs: program(**inputs), json.loads(extra[METADATA])


def _require_compiler(device: torch.device, precision: Precision) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            "--format aoti needs a C++ compiler, and none is found that works: install g++, or set CXX to its path"
        ) from error


def _write_aoti(traced: ExportedProgram, path: Path, metadata: Mapping[str, str], program: ModelProgram) -> None:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InductorError

    options = _INDUCTOR | {"aot_inductor.metadata": dict(metadata)}
    try:
        with _silent():
            aoti_compile_and_package(traced, package_path=str(path), inductor_configs=options)
    except (CppCompileError, InductorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HdganError(f"{path.name} could not be compiled ({reason:.300}): give another --format") from error


def _read_aoti(path: Path) -> tuple[Run, dict[str, str]]:
    from torch._inductor import aoti_load_package

    with _silent():
        package = aoti_load_package(str(path))
    described = {name: value for name, value in package.get_metadata().items() if not name.startswith("AOTI_")}
    return lambda inputs: package(**inputs), described


FORMATS: dict[FormatName, Format] = {
    "onnx": Format(".onnx", _require_onnx, _write_onnx, _read_onnx),
    "pt2": Format(".pt2", None, _write_pt2, _read_pt2),
    # Inductor takes the output of a convolution for contiguous where its size is an unbacked symbol, though it makes it
    # channels-last, and reads it in the wrong order. From this side on the padded size is an expression of the size
    # (`pad_to_multiple`), and the layout is known.
    "aoti": Format(
        ".pt2", _require_compiler, _write_aoti, _read_aoti, lambda multiple: multiple + 1, checks_sides=True
    ),
}


@contextmanager
def _silent() -> Iterator[None]:
    """Without the notes of PyTorch's exporters to their own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._inductor", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
