"""Builds csrc/ for the host with the CUDA kernels emulated, all of it under AddressSanitizer and UBSan."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pybind11

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
EMULATOR = HERE / "emulator"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-DHD_BASELINE_ONLY", *WARNINGS]
CUDA_FLAGS = [*FLAGS, *SANITIZE, f"-I{EMULATOR}", f"-I{CSRC}"]
SHARED_VARIABLE = re.compile(r"(?<!extern )\b__shared__ [^;]*?\b(\w+)\s*(?:\[[^;]*\])?;")


def sanitizer_environment() -> dict[str, str]:
    """For a process, such as python, that is not itself built with sanitizers but loads what is."""
    libraries = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in LIBRARIES]
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


LIBRARIES = ("libasan.so", "libubsan.so")


def run(command: list[str | Path], source: str | None = None) -> None:
    done = subprocess.run([str(part) for part in command], input=source, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")


def emulated(source: Path) -> str:
    """The text of a file of CUDA in which each static shared variable is poisoned where it is declared."""
    text = SHARED_VARIABLE.sub(r"\g<0> ::emulator::poison(&\1, sizeof(\1));", source.read_text())
    return f'#line 1 "{source}"\n{text}'


def compile_emulated(source: Path, out: Path, *flags: str) -> None:
    """Compile a .cu file; with -c among the flags to an object, otherwise to a program."""
    with TemporaryDirectory() as headers:
        for header in CSRC.glob("*.cuh"):
            (Path(headers) / header.name).write_text(emulated(header))
        run(["g++", f"-I{headers}", *CUDA_FLAGS, *flags, "-x", "c++", "-", "-o", out], emulated(source))


def build(folder: Path) -> Path:
    """Build the extension into `folder` and return its file. Objects whose sources have not changed are kept."""
    headers = sorted([*CSRC.glob("*.h"), *CSRC.glob("*.cuh"), *EMULATOR.glob("*.h"), Path(__file__)])
    common = hashlib.sha256(b"".join(header.read_bytes() for header in headers))
    python = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]
    cuda = ["-DHD_WITH_CUDA", '-DHD_CUDA_ARCHS="emulated"', '-DHD_CUDA_VERSION="emulated"']

    def compiled(source: Path) -> Path:
        digest = common.copy()
        digest.update(source.read_bytes())
        out = folder / f"{source.name}-{digest.hexdigest()[:16]}.o"
        if out.exists():
            return out
        for old in folder.glob(f"{source.name}-*.o"):
            old.unlink()
        unfinished = out.with_suffix(f".{os.getpid()}")
        if source.suffix == ".cu":
            compile_emulated(source, unfinished, "-c")
        elif source.name == "bindings.cpp":
            run(["g++", *FLAGS, *python, *cuda, "-c", source, "-o", unfinished])
        else:
            run(["g++", *FLAGS, *SANITIZE, "-fopenmp", "-DHD_ISA=baseline", "-c", source, "-o", unfinished])
        unfinished.replace(out)
        return out

    sources = sorted([*CSRC.glob("*.cpp"), *CSRC.glob("*.cu")], key=lambda source: source.name != "bindings.cpp")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    name = hashlib.sha256(" ".join(item.name for item in objects).encode()).hexdigest()[:16]
    module = folder / f"_C-{name}.so"
    if not module.exists():
        for old in folder.glob("_C-*.so"):
            old.unlink()
        run(["g++", "-shared", *SANITIZE, "-fopenmp", *objects, "-o", module])
    return module
