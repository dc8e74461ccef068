"""`hdgan export`: models as programs for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from hdgan.config.bounds import Depth, Precision
from hdgan.export import Exported, FormatName, Part, StyleSource, export_program
from hdgan.inference import load
from hdgan.progress import print_lines
from hdgan.wording import count


def export(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    out: Path,
    format: FormatName = "onnx",
    part: Part = "picture",
    precision: Precision = "float32",
    styles: StyleSource = "mean",
    input_depth: Depth | None = None,
    variant: int = 0,
    checkpoint: str = "latest",
    device: str = "cpu",
    ema: bool = True,
) -> int:
    """Write a model as a program from label and instance maps to pictures, which runs where hdgan is not installed.

    It takes batches of maps of any size from 3x3 pixels, int32 [B, H, W], or images [B, H, W, C]. It makes pictures
    [B, H, W, C] in the bit depth of the photos that the model was trained on. A model with noise or dropout also takes
    a seed for each picture, int64 [B]. The file says what it takes and makes, and which classes there are. It is run
    and compared with the model before it gets its name.

    Programs of --format pt2 and aoti take their inputs by keyword, as in program(label=label, instance=instance).
    docs/integration.md has examples of all calls.

    A program of --format aoti is machine code. It runs on the kind of CPU or GPU, on the operating system and with the
    PyTorch version that it was made with, from Python or C++, and may end with an error elsewhere. Its maps have more
    pixels a side than the multiple to which the network pads, as the file says; it refuses smaller ones.

    Args:
        run: run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or
            hf:OWNER/NAME, a model on the Hugging Face Hub.
        out: the file, *.onnx or *.pt2. Nothing is overwritten.
        format: onnx, for ONNX Runtime and others; pt2, a program of torch.export, which needs PyTorch alone; or aoti, a
            package of AOTInductor, which needs a C++ compiler here and PyTorch where it runs.
        part: the generator, or the encoder, which gives each instance of a photo its style.
        precision: of the weights and of most computations.
        styles: mean gives each instance the mean style of its class. With input, the program takes the style of each
            pixel, and NAME.styles.json beside it has the mean styles and the clusters.
        input_depth: type of the numbers of the image that a model of A->B pairs takes, by default uint8.
        variant: which of the images of a CRN that makes several, from 0.
        checkpoint: which one of a run: latest, best, or a step.
        device: cpu, or the GPU on which a pt2 or aoti program will run, such as cuda.
        ema: use the averaged weights.
    """
    pipeline = load(run, checkpoint=checkpoint, device=device, precision=precision, ema=ema, cuda_graphs=False)
    exported = export_program(pipeline, out, format, part=part, styles=styles, input_depth=input_depth, variant=variant)
    print_lines(Console(), *_report(exported))
    return 0


def _report(exported: Exported) -> list[str]:
    """What the program takes and makes, how it was checked, and what was written."""
    program = exported.program
    takes = [f"takes {spec.name}: {spec.dtype} {_shape(spec.shape)}, {spec.meaning}" for spec in program.inputs]
    makes = f"makes {program.output.name}: {program.output.dtype} {_shape(program.output.shape)}"
    checks = []
    for difference in exported.differences:
        batch, height, width = difference.shape
        checks.append(
            f"checked on {count(batch, 'map')} of {width}x{height}: {difference.mean:.2g} 8-bit levels from the model "
            f"in float32 on average, {difference.most:.2g} at most"
        )
    return [*takes, makes, *checks, *(f"wrote {file}" for file in exported.files)]


def _shape(sizes: tuple[str | int, ...]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
