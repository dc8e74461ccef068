"""Builds hdgan._C from csrc/ with ninja; the metadata is in pyproject.toml.

The extension has no torch headers in it: pybind11 and, where nvcc is found, the static CUDA runtime. Three variables
steer it: HDGAN_BUILD = cuda (nvcc must be there), cpu (leave CUDA out) or none (Python alone); unset, CUDA is built
whenever there is nvcc. TORCH_CUDA_ARCH_LIST names the GPU architectures, as for torch's own extensions.
HDGAN_WHEEL_TAG = cu130 adds +cu130 to the version of a wheel, which must be built by the nvcc of CUDA 13.0.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.egg_info import egg_info

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "csrc"
# Code for 8.0 runs on 8.6 and 8.9 too, as PTX does on what is newer than all of these.
DEFAULT_ARCHS = "8.0 9.0 10.0 12.0+PTX"
# Another compiler may warn of other things, or allocate registers in another way; that must not end an installation.
STRICT = bool(os.environ.get("HDGAN_STRICT"))
WARNINGS = ["-Wall", "-Wextra", *(["-Werror"] if STRICT else [])]
# What the CPU kernels need of an x86 processor, which those since 2013 have. bindings.cpp, which needs none of it, says
# whether it is there.
X86_64 = platform.machine().lower() in ("x86_64", "amd64")
INSTRUCTION_SET = ["-mavx2", "-mfma", "-mf16c"] if X86_64 else []
# Apple's compiler comes without OpenMP's threads, but vectorises as its pragmas say.
OPENMP = ["-fopenmp-simd"] if sys.platform == "darwin" else ["-fopenmp"]

NINJA_RULES = """\
ninja_required_version = 1.5
rule cxx
  command = $cxx $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = C++ $out
rule nvcc
  command = $nvcc $flags -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = CUDA $out
rule link
  command = $cxx -shared $in $flags -o $out
  description = link $out
"""


def find_nvcc() -> Path | None:
    """The CUDA compiler that HDGAN_BUILD asks for or, unset, that there is."""
    mode = os.environ.get("HDGAN_BUILD", "")
    if mode not in ("", "cuda", "cpu", "none"):
        raise SystemExit(f"HDGAN_BUILD={mode}: expected cuda, cpu, none, or nothing")
    if mode in ("cpu", "none"):
        return None
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = shutil.which("nvcc", path=os.pathsep.join([*(f"{home}/bin" for home in homes), os.environ.get("PATH", "")]))
    if found is None and mode == "cuda":
        raise SystemExit(
            "HDGAN_BUILD=cuda: no nvcc on PATH or in CUDA_HOME; install the CUDA toolkit or unset HDGAN_BUILD"
        )
    return Path(found) if found else None


def output_of(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        found = done.stderr.strip()
        raise SystemExit(f"{shlex.join(map(str, command))} failed: {found}; HDGAN_BUILD=cpu leaves CUDA out")
    return done.stdout + done.stderr


def static_runtime(nvcc: Path) -> Path:
    """The folder of libcudart_static.a; nvcc may be a script elsewhere, so it is asked where its toolkit lies."""
    found = re.search(r"^#\$ TOP=(.*)$", output_of(nvcc, "--dryrun", "x.cu"), re.MULTILINE)
    top = Path(found[1]) if found else nvcc.resolve().parent.parent
    for folder in (top / "lib64", top / "lib", *top.glob("targets/*/lib")):
        if (folder / "libcudart_static.a").exists():
            return folder.resolve()
    raise SystemExit(
        f"{nvcc}: no libcudart_static.a under {top}; install the CUDA toolkit whole or set HDGAN_BUILD=cpu"
    )


def architectures(nvcc: Path) -> list[str]:
    """The compute capabilities to build for, such as 9.0 or 12.0+PTX."""
    asked = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    for arch in asked:
        if not re.fullmatch(r"\d+\.\d(\+PTX)?|\d+\.\d[af]", arch):
            raise SystemExit(f"TORCH_CUDA_ARCH_LIST: expected compute capabilities such as 9.0 or 12.0+PTX, got {arch}")
    if asked:
        return without_old(asked)
    known = output_of(nvcc, "--list-gpu-code")
    archs = [arch for arch in DEFAULT_ARCHS.split() if f"sm_{digits(arch)}\n" in known]
    return [arch.removesuffix("+PTX") for arch in archs[:-1]] + [archs[-1].removesuffix("+PTX") + "+PTX"]


def without_old(asked: list[str]) -> list[str]:
    """Those of the compute capabilities for which nvcc can compile the kernels: cp.async came with 8.0."""
    archs = [arch for arch in asked if int(arch.split(".")[0]) >= 8]
    if not archs:
        raise SystemExit(
            "TORCH_CUDA_ARCH_LIST: the CUDA kernels need compute capability 8.0 or higher, got "
            f"{' '.join(asked)}; HDGAN_BUILD=cpu leaves CUDA out"
        )
    if archs != asked:
        left_out = " ".join(arch for arch in asked if arch not in archs)
        print(
            f"TORCH_CUDA_ARCH_LIST: {left_out} left out, since the CUDA kernels need compute capability 8.0 or higher",
            file=sys.stderr,
        )
    return archs


def cuda_version(nvcc: Path) -> str:
    """The version of the CUDA toolkit, such as 13.0."""
    found = re.search(r"release (\d+\.\d+)", output_of(nvcc, "--version"))
    if found is None:
        raise SystemExit(f"{nvcc} --version names no release; HDGAN_BUILD=cpu leaves CUDA out")
    return found[1]


def digits(arch: str) -> str:
    return arch.removesuffix("+PTX").replace(".", "")


def gencode(archs: list[str]) -> list[str]:
    """Flags for one PTX, of the oldest architecture, and machine code of all made from it.

    The kernels use nothing that came after 8.0, and it takes half the time of compiling for each. Architectures that
    end in a letter are compiled for by themselves.
    """
    shared = [digits(arch) for arch in archs if digits(arch).isdigit()]
    flags = []
    if shared:
        oldest = min(shared, key=int)
        codes = [f"sm_{arch}" for arch in shared] + [f"compute_{oldest}"] * any(a.endswith("+PTX") for a in archs)
        flags.append(f"-gencode=arch=compute_{oldest},code=[{','.join(codes)}]")
    specific = [digits(arch) for arch in archs if digits(arch) not in shared]
    return flags + [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in specific]


def escape(text: object) -> str:
    return str(text).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def longest_first(pattern: str) -> list[Path]:
    """Sources by the size of all files of their op: ninja starts them in this order, and short ones fill the end."""

    def size(source: Path) -> int:
        return sum(file.stat().st_size for file in CSRC.glob(f"{source.stem}*{source.suffix}*"))

    return sorted(CSRC.glob(pattern), key=lambda source: (-size(source), source.name))


def write_ninja(folder: Path, module: Path, nvcc: Path | None) -> None:
    """Write build.ninja: every <op>.cpp and <op>.cu, and the bindings."""
    import pybind11

    cxx = os.environ.get("CXX", "c++")
    # Without the second line GCC does not vectorise choices such as x > 0 ? x : a * x, but for AVX-512.
    common = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", *WARNINGS]
    common += ["-fno-trapping-math", "-fno-math-errno"]
    lines, objects = [NINJA_RULES, f"cxx = {cxx}"], []

    def build(rule: str, source: Path, name: str, flags: list[str]) -> None:
        objects.append(name)
        lines.append(f"build {name}: {rule} {escape(source)}\n  flags = {shlex.join(flags).replace('$', '$$')}")

    python = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]
    link = [*OPENMP, *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-s"])]
    cuda = []
    if nvcc:
        archs = architectures(nvcc)
        cuda = [
            "-DHD_WITH_CUDA",
            f'-DHD_CUDA_ARCHS="{" ".join(archs)}"',
            f'-DHD_CUDA_VERSION="{cuda_version(nvcc)}"',
        ]
        lines.append(f"nvcc = {escape(nvcc)}")
        link += [f"-L{static_runtime(nvcc)}", "-lcudart_static", "-lpthread", "-ldl", "-lrt"]
        host = ["-Xcompiler", "-fPIC,-fvisibility=hidden", *(["-ccbin", cxx] if "CXX" in os.environ else [])]
        checks = ["-Werror", "all-warnings", "-Xptxas", "-warn-spills,-warn-lmem-usage"] if STRICT else []
        # -O1 is of the host's code, which launches kernels; those are optimised in full whatever it says.
        for source in longest_first("*.cu"):
            build("nvcc", source, f"{source.stem}.cuda.o", ["-std=c++17", "-O1", *host, *checks, *gencode(archs)])
    options = ["-std=c++17", "-O1", *common[2:], *OPENMP, *cuda, *python, *(["-DHD_AVX2"] if X86_64 else [])]
    build("cxx", CSRC / "bindings.cpp", "bindings.o", options)
    for source in longest_first("*.cpp"):
        if source.name != "bindings.cpp":
            build("cxx", source, f"{source.stem}.cpu.o", [*common, *OPENMP, *INSTRUCTION_SET])
    lines.append(f"build {escape(module)}: link {' '.join(objects)}\n  flags = {shlex.join(link)}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


class TaggedVersion(egg_info):
    """Adds HDGAN_WHEEL_TAG to the version of pyproject.toml, also in a wheel that is built from an sdist."""

    def finalize_options(self) -> None:
        tag = os.environ.get("HDGAN_WHEEL_TAG")
        if tag:
            check_tag(tag)
            self.tag_build = f"+{tag}"
        super().finalize_options()


def check_tag(tag: str) -> None:
    """Make sure that a tag says what the wheel holds."""
    if "sdist" in sys.argv:
        raise SystemExit(
            f"HDGAN_WHEEL_TAG={tag}: only wheels have a tag; unset it, or build a wheel alone (python -m build --wheel)"
        )
    nvcc = find_nvcc()
    if nvcc is None:
        raise SystemExit(f"HDGAN_WHEEL_TAG={tag}: only wheels with CUDA have a tag; unset it, or set HDGAN_BUILD=cuda")
    expected = f"cu{cuda_version(nvcc).replace('.', '')}"
    if tag != expected:
        raise SystemExit(f"HDGAN_WHEEL_TAG={tag}: expected {expected}, since {nvcc} is of CUDA {cuda_version(nvcc)}")


class NinjaBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        nvcc = find_nvcc()
        # An editable installation keeps its objects in the checkout, so that the next one compiles what has changed.
        temporary = BUILD if self.editable_mode else Path(self.build_temp).resolve()
        # CPU and CUDA builds do not share objects: switching between them must not link stale ones.
        folder = temporary / (f"cuda-{cuda_version(nvcc)}" if nvcc else "cpu")
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        module.parent.mkdir(parents=True, exist_ok=True)
        write_ninja(folder, module, nvcc)
        ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
        command = [ninja] if ninja else [sys.executable, "-m", "ninja"]
        try:
            subprocess.run([*command, "-C", str(folder), *(["-v"] if self.verbose > 1 else [])], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"building hdgan._C failed ({folder}); the compiler's errors are above. "
                "HDGAN_BUILD=cpu leaves CUDA out, HDGAN_BUILD=none builds no extension"
            ) from error


python_alone = os.environ.get("HDGAN_BUILD") == "none" or sys.platform == "win32"
setup(
    ext_modules=[] if python_alone else [Extension("hdgan._C", sources=[])],
    cmdclass={"build_ext": NinjaBuild, "egg_info": TaggedVersion},
)
