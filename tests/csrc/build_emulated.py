"""Builds csrc/ for the host with the CUDA kernels emulated: under sanitizers, or telling of each access to memory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pybind11

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
EMULATOR = HERE / "emulator"
COUNTS = HERE / "counts"
LIBRARIES = ("libasan.so", "libubsan.so")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
FLAGS = ("-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-DHD_EMULATED", *WARNINGS)
INCLUDES = (f"-I{EMULATOR}", f"-I{CSRC}", f"-I{COUNTS}")
PYTHON = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
SHARED_VARIABLE = re.compile(r"(?<!extern )\b__shared__ [^;]*?\b(\w+)\s*(?:\[[^;]*\])?;")


@dataclass(frozen=True)
class Build:
    """The flags of a build, and the sources that it has besides those of csrc/."""

    cuda: tuple[str, ...]
    cpu: tuple[str, ...]
    link: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()


SANITIZED = Build(cuda=("-O1", *SANITIZE), cpu=("-O1", *SANITIZE), link=SANITIZE)
# ThreadSanitizer's instrumentation without its library. A pack is moved whole, as by a GPU. CPU kernels do not run.
COUNTED = Build(
    cuda=(
        *("-O1", "-fno-tree-sra", "-fno-tree-vectorize", "-DHD_COUNTED"),
        *("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"),
    ),
    cpu=("-O0",),
    sources=tuple(sorted(COUNTS.glob("*.cpp"))),
)


def sanitizer_environment() -> dict[str, str]:
    """For a process, such as python, that is not itself built with sanitizers but loads what is."""
    libraries = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in LIBRARIES]
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def run(command: list[str | Path], source: str | None = None) -> None:
    done = subprocess.run([str(part) for part in command], input=source, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")


def emulated(source: Path) -> str:
    """The text of a file of CUDA in which each static shared variable is poisoned where it is declared."""
    text = SHARED_VARIABLE.sub(r"\g<0> ::emulator::poison(&\1, sizeof(\1));", source.read_text())
    return f'#line 1 "{source}"\n{text}'


def compile_emulated(source: Path, out: Path, *flags: str | Path, build: Build = SANITIZED) -> None:
    """Compile a .cu file to an object."""
    with TemporaryDirectory() as headers:
        for header in CSRC.glob("*.cuh"):
            (Path(headers) / header.name).write_text(emulated(header))
        command = ["g++", *FLAGS, *build.cuda, f"-I{headers}", *INCLUDES, *flags]
        run([*command, "-x", "c++", "-c", "-", "-o", out], emulated(source))


def compile_counter(source: Path, out: Path) -> None:
    """Compile a file of tests/csrc/counts to an object."""
    run(["g++", *FLAGS, "-O2", "-DHD_COUNTED", *PYTHON, *INCLUDES, "-c", source, "-o", out])


def build_program(source: Path, out: Path, build: Build = SANITIZED) -> None:
    """Build a program of a single .cu file, and of what counts its accesses."""
    counters = [item for item in build.sources if item.stem != "module"]
    objects = [out.with_suffix(f".{item.stem}.o") for item in counters]
    for counter, compiled in zip(counters, objects, strict=True):
        compile_counter(counter, compiled)
    compile_emulated(source, out.with_suffix(".o"), build=build)
    run(["g++", *build.link, out.with_suffix(".o"), *objects, "-ldl", "-o", out])


def compile_part(source: Path, out: Path, build: Build) -> None:
    """Compile one source of the extension to an object."""
    cuda = ["-DHD_WITH_CUDA", '-DHD_CUDA_ARCHS="emulated"', '-DHD_CUDA_VERSION="emulated"']
    if source.suffix == ".cu":
        compile_emulated(source, out, build=build)
    elif source.parent == COUNTS:
        compile_counter(source, out)
    elif source.name == "bindings.cpp":
        run(["g++", *FLAGS, "-O1", *PYTHON, *cuda, "-c", source, "-o", out])
    else:
        run(["g++", *FLAGS, *build.cpu, "-fopenmp", "-c", source, "-o", out])


def build_extension(folder: Path, build: Build = SANITIZED) -> Path:
    """Build the extension into `folder` and return its file. Objects whose sources have not changed are kept.

    Of several processes one builds, and the others wait for it.
    """
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build_extension(folder, build)


def _build_extension(folder: Path, build: Build) -> Path:
    headers = sorted([*CSRC.glob("*.h"), *CSRC.glob("*.cuh"), *EMULATOR.glob("*.h"), *COUNTS.glob("*.h")])
    common = hashlib.sha256(b"".join(header.read_bytes() for header in [*headers, Path(__file__)]))

    def compiled(source: Path) -> Path:
        digest = common.copy()
        digest.update(source.read_bytes())
        out = folder / f"{source.name}-{digest.hexdigest()[:16]}.o"
        if out.exists():
            return out
        for old in folder.glob(f"{source.name}-*.o"):
            old.unlink()
        unfinished = out.with_suffix(f".{os.getpid()}")
        compile_part(source, unfinished, build)
        unfinished.replace(out)
        return out

    sources = sorted([*CSRC.glob("*.cpp"), *CSRC.glob("*.cu")], key=lambda source: source.name != "bindings.cpp")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*sources, *build.sources]))
    name = hashlib.sha256(" ".join(item.name for item in objects).encode()).hexdigest()[:16]
    module = folder / f"_C-{name}.so"
    if not module.exists():
        for old in folder.glob("_C-*.so"):
            old.unlink()
        run(["g++", "-shared", *build.link, "-fopenmp", *objects, "-ldl", "-o", module])
    return module
