"""The build of hdgan._C and the packages made of it, in copies of the tree."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hdgan.checkpoints import MODEL_FILE, PRETRAINED
from hdgan.families import PatchConfig, Pix2Pix, Pix2PixConfig, UNetConfig
from hdgan.families.saving import save_model

ROOT = Path(__file__).parent.parent
FOLDERS = ("hdgan", *re.findall(r"^graft (.*)$", (ROOT / "MANIFEST.in").read_text(), re.MULTILINE))
FILES = (
    ".clang-format",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "mkdocs.yml",
    "pyproject.toml",
    "setup.py",
)
GENERATED = (
    "benchmarks/.benchmarks/a.json",
    "csrc/avg_pyramid.o",
    "docs/__pycache__/a.pyc",
    "hdgan/_C.so",
    "hdgan-bench/rows.csv",
    "runs/demo/config.json",
    "tests/.pytest_cache/v/a",
    "tests/csrc/.mypy_cache/a.json",
)
"""What lies about in a checkout and belongs into no package."""
pytestmark = pytest.mark.slow


def python(folder: Path, *arguments: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, whose package it imports. Those of our variables that are not given are empty: unset."""
    # -S: an editable installation would complete the package by its own extension.
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry.endswith("-packages"))])
    settings = {"HDGAN_BUILD": "", "HDGAN_BACKEND": "", "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def copy_tree(folder: Path) -> Path:
    """Copy what the package is built from, without what has been built."""
    folder.mkdir(parents=True)
    unwanted = shutil.ignore_patterns("*.so", "*.o", "*.py[cod]", "__pycache__", ".*_cache", ".benchmarks")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def add_model(tree: Path) -> None:
    """Let a tree have a further model that comes with hdgan, tiny and untrained."""
    unet, patch = UNetConfig(2, 5, ()), PatchConfig(2, 1)
    model = Pix2Pix(Pix2PixConfig(n_labels=3, instances=False, generator=unet, discriminator=patch))
    save_model(tree / "hdgan" / "pretrained" / "tiny" / MODEL_FILE, model)


def make_wheel(folder: Path, **environment: str) -> Path:
    command = ["-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", "dist", "."]
    python(folder, *command, **environment)
    (wheel,) = folder.glob("dist/*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def path_without_nvcc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH in which folders with nvcc are replaced by links to all else that they have."""
    folders = []
    for folder in os.environ["PATH"].split(os.pathsep):
        if not (Path(folder) / "nvcc").exists():
            folders.append(folder)
            continue
        links = tmp_path_factory.mktemp("path")
        for tool in Path(folder).iterdir():
            if tool.name != "nvcc":
                (links / tool.name).symlink_to(tool)
        folders.append(str(links))
    return os.pathsep.join(folders)


@dataclass
class Built:
    """The one build that tests share."""

    tracked: frozenset[str]
    """The files of the tree that the sdist is made of."""
    sdist: Path
    source: Path
    """The sdist unpacked, with the objects of the build."""
    wheel: Path
    installed: Path
    """The wheel unpacked."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("build")
    tree = copy_tree(folder / "tree")
    add_model(tree)
    tracked = frozenset(str(file.relative_to(tree)) for file in tree.rglob("*") if file.is_file())
    for name in GENERATED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("generated")
    python(tree, "setup.py", "-q", "sdist", HDGAN_BUILD="none")
    (sdist,) = tree.glob("dist/*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    wheel = make_wheel(source, HDGAN_BUILD="cpu")
    return Built(tracked, sdist, source, wheel, unpack(wheel, folder / "installed"))


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel without an extension, unpacked."""
    folder = tmp_path_factory.mktemp("alone")
    wheel = make_wheel(copy_tree(folder / "tree"), HDGAN_BUILD="none")
    assert wheel.name.endswith("-py3-none-any.whl")
    return unpack(wheel, folder / "installed")


TRY_BACKENDS = """
import json, torch, hdgan.ops
from hdgan.ops._backend import why_unusable
x = torch.arange(30.0).view(1, 1, 5, 6)
def attempt(backend):
    try:
        return hdgan.ops.avg_pyramid(x, 1, backend=backend)[1].tolist()
    except hdgan.ops.BackendError as error:
        return str(error)
print(json.dumps([hdgan.__file__, *map(attempt, (None, "eager", "cpu", "cuda")), why_unusable("cuda")]))
"""


def test_without_cuda(built: Built) -> None:
    done = python(built.installed, "-c", TRY_BACKENDS)
    file, default, eager, cpu, cuda, reason = json.loads(done.stdout)
    assert Path(file).is_relative_to(built.installed)
    assert default == cpu == eager
    assert "backend 'cuda' cannot run" in cuda
    assert reason == "hdgan._C was built without CUDA; install a wheel with CUDA, or from source with nvcc on PATH"
    script = "import hdgan._C; print(hdgan._C.cuda_archs, hdgan._C.cuda_version)"
    assert python(built.installed, "-c", script).stdout == "None None\n"


def test_nvcc_is_not_needed(built: Built, path_without_nvcc: str) -> None:
    environment = {"PATH": path_without_nvcc, "CUDA_HOME": "", "CUDA_PATH": ""}
    python(built.source, "setup.py", "-q", "build_ext", "--inplace", **environment)
    script = "import hdgan._C; print(hdgan._C.__file__, hdgan._C.cuda_archs)"
    file, archs = python(built.source, "-c", script).stdout.split()
    assert Path(file).parent == built.source / "hdgan"
    assert archs == "None"


def test_python_alone(alone: Path) -> None:
    file, default, eager, cpu, cuda, _ = json.loads(python(alone, "-c", TRY_BACKENDS).stdout)
    assert Path(file).is_relative_to(alone)
    assert default == eager
    assert "hdgan._C cannot be imported" in cpu
    assert "cuda" in cuda
    facts = json.loads(python(alone, "-m", "hdgan", "info", "--json").stdout)
    assert facts["extension"] is None
    assert "install hdgan with a C++ compiler" in facts["backends"]["cpu"]


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("nonsense", "HDGAN_BUILD=nonsense: expected cuda, cpu, none, or nothing"),
        ("cuda", "HDGAN_BUILD=cuda: no nvcc on PATH or in CUDA_HOME; install the CUDA toolkit or unset HDGAN_BUILD"),
    ],
)
def test_wrong_requests_end_in_one_line(built: Built, path_without_nvcc: str, mode: str, says: str) -> None:
    environment = {"HDGAN_BUILD": mode, "PATH": path_without_nvcc, "CUDA_HOME": "", "CUDA_PATH": ""}
    done = python(built.source, "setup.py", "-q", "build_ext", "--inplace", ok=False, **environment)
    assert done.returncode == 1
    assert done.stderr.strip() == says


@pytest.fixture
def nvcc_13(tmp_path: Path) -> str:
    """PATH that begins with a compiler of CUDA 13.0, which can only say its version."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n")
    nvcc.chmod(0o755)
    return f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}"


def test_wheels_with_cuda_say_so_in_their_version(built: Built, nvcc_13: str, tmp_path: Path) -> None:
    environment = {"PATH": nvcc_13, "CUDA_HOME": "", "CUDA_PATH": "", "HDGAN_WHEEL_TAG": "cu130"}
    command = ("setup.py", "-q", "dist_info", "--output-dir", str(tmp_path / "info"))
    (tmp_path / "info").mkdir()
    python(built.source, *command, **environment)
    (info,) = (tmp_path / "info").iterdir()
    version = built.wheel.name.split("-")[1]
    assert "+" not in version
    assert info.name == f"hdgan-{version}+cu130.dist-info"
    assert f"\nVersion: {version}+cu130\n" in (info / "METADATA").read_text()


@pytest.mark.parametrize(
    ("tag", "command", "build", "says"),
    [
        ("cu128", "egg_info", "", "expected cu130, since {nvcc} is of CUDA 13.0"),
        ("CU130; rm", "egg_info", "", "expected cu130, since {nvcc} is of CUDA 13.0"),
        ("cu130", "egg_info", "cpu", "only wheels with CUDA have a tag; unset it, or set HDGAN_BUILD=cuda"),
        ("cu130", "sdist", "", "only wheels have a tag; unset it, or build a wheel alone (python -m build --wheel)"),
    ],
)
def test_a_tag_has_to_be_true(built: Built, nvcc_13: str, tag: str, command: str, build: str, says: str) -> None:
    environment = {"PATH": nvcc_13, "CUDA_HOME": "", "CUDA_PATH": "", "HDGAN_WHEEL_TAG": tag, "HDGAN_BUILD": build}
    done = python(built.source, "setup.py", "-q", command, ok=False, **environment)
    assert done.returncode == 1
    nvcc = Path(nvcc_13.split(os.pathsep)[0]) / "nvcc"
    assert done.stderr.strip() == f"HDGAN_WHEEL_TAG={tag}: {says.format(nvcc=nvcc)}"


@pytest.fixture
def toolkit(nvcc_13: str) -> dict[str, str]:
    """Settings with a CUDA toolkit whose compiler compiles nothing, as the C++ compiler beside it."""
    nvcc = Path(nvcc_13.split(os.pathsep)[0]) / "nvcc"
    runtime = nvcc.parent.parent / "lib64" / "libcudart_static.a"
    runtime.parent.mkdir()
    runtime.touch()
    nvcc.write_text(nvcc.read_text() + 'for argument; do [ "$argument" != -c ] || exit 1; done\n')
    return {"HDGAN_BUILD": "cuda", "PATH": nvcc_13, "CUDA_HOME": "", "CUDA_PATH": "", "CXX": "false"}


NEEDED = "the CUDA kernels need compute capability 8.0 or higher"


def test_architectures_that_the_kernels_cannot_be_compiled_for_are_left_out(
    toolkit: dict[str, str], tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path / "tree")
    command = ("setup.py", "-q", "build_ext", "--inplace")
    done = python(tree, *command, ok=False, TORCH_CUDA_ARCH_LIST="6.1;7.5 8.6 9.0a", **toolkit)
    assert f"TORCH_CUDA_ARCH_LIST: 6.1 7.5 left out, since {NEEDED}\n" in done.stderr
    (rules,) = tree.glob("build/**/build.ninja")
    assert set(re.findall(r"(?:sm|compute)_(\w+)", rules.read_text())) == {"86", "90a"}
    assert 'HD_CUDA_ARCHS="8.6 9.0a"' in rules.read_text()

    done = python(tree, *command, ok=False, TORCH_CUDA_ARCH_LIST="7.0;7.5+PTX", **toolkit)
    assert done.returncode == 1
    assert done.stderr.strip() == f"TORCH_CUDA_ARCH_LIST: {NEEDED}, got 7.0 7.5+PTX; HDGAN_BUILD=cpu leaves CUDA out"


def listing(tool: str, option: str, *objects: Path) -> str:
    return subprocess.run([tool, option, *objects], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="one instruction set for all")
def test_a_processor_without_avx2_runs_nothing_that_needs_it(built: Built) -> None:
    (bindings,) = built.source.glob("build/**/bindings.o")
    kernels = sorted(built.source.glob("build/**/*.cpu.o"))
    avx = re.compile(r"\t(v\w+) .*%[xy]mm")
    assert not avx.search(listing("objdump", "-d", bindings))
    assert avx.search(listing("objdump", "-d", *kernels))
    # The linker keeps one of several weak functions, which could be that for AVX2. Initialisers run at the import.
    symbols = listing("nm", "-C", *kernels)
    assert re.findall(r"^\w* [Wu] (?!hd::cpu::).*$", symbols, re.MULTILINE) == []
    assert "_GLOBAL__sub_I" not in symbols


def test_packages_are_whole(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert {"benchmarks", "csrc", "docs", "examples", "kernels", "tests"} <= set(FOLDERS)
    assert built.tracked - files == set()
    made = {file for file in files if not file.startswith("hdgan.egg-info/")} - {"PKG-INFO", "setup.cfg"}
    behind_links = {file for file in made if file.startswith(("hdgan/benchmarks/", "hdgan/kernels/"))}
    assert made - behind_links - built.tracked == set()
    models = {f"hdgan/{file.relative_to(PRETRAINED.parent)}" for file in PRETRAINED.glob("*/*.safetensors")}
    models.add(f"hdgan/pretrained/tiny/{MODEL_FILE}")
    assert models <= files
    linked = {
        f"hdgan/{path.relative_to(ROOT)}" for name in ("benchmarks", "kernels") for path in (ROOT / name).rglob("*.py")
    }
    assert linked <= files
    with zipfile.ZipFile(built.wheel) as archive:
        contents = set(archive.namelist())
    assert linked | models <= contents
    assert len([name for name in contents if re.fullmatch(r"hdgan/_C\..*so", name)]) == 1
    assert not [name for name in contents if name.startswith(("benchmarks", "csrc", "examples", "kernels", "tests"))]


def test_models_of_the_package_are_found_by_name(built: Built) -> None:
    script = "import hdgan; pipeline = hdgan.load('tiny', device='cpu'); print(pipeline.file, pipeline.config.n_labels)"
    file, n_labels = python(built.installed, "-c", script).stdout.split()
    assert Path(file) == built.installed / "hdgan" / "pretrained" / "tiny" / MODEL_FILE
    assert n_labels == "3"


FORK = """
import multiprocessing, torch
from hdgan.ops import avg_pyramid
torch.set_num_threads(2)
x = torch.ones(2, 4, 64, 64)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return avg_pyramid(x * index, 1, backend="cpu")[1]

def work(index):
    return float(Data()[index].mean())

if __name__ == "__main__":
    Data()[0]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, range(4)))
    loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork")
    print([float(batch.mean()) for batch in loader])
    print(work(3))
"""


def test_ops_work_after_a_fork(built: Built, tmp_path: Path) -> None:
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    expected = "[0.0, 1.0, 2.0, 3.0]"
    assert python(built.installed, str(script)).stdout.splitlines() == [expected, expected, "3.0"]


THREADS = """
import re, threading, torch
from pathlib import Path
from hdgan.ops import avg_pyramid

def run_on(threads):
    torch.set_num_threads(threads)
    avg_pyramid(torch.ones(8, 4, 64, 64), 1, backend="cpu")
    return len(list(Path("/proc/self/task").iterdir()))

before, one, two = len(list(Path("/proc/self/task").iterdir())), run_on(1), run_on(2)
print(one - before, two - one)
maps = Path("/proc/self/maps").read_text()
print(len(set(re.findall(r"\\S*/lib[gi]?omp[\\d.-]*\\S*", maps))))
"""


def test_threads_are_those_of_torch(built: Built) -> None:
    assert python(built.installed, "-c", THREADS).stdout.splitlines() == ["0 1", "1"]
