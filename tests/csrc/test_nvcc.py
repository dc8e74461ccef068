"""The .cu files compiled by nvcc: no warnings, and every kernel keeps its values in registers."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent.parent / "csrc"
ARCHS = (80, 90, 100, 120)
KERNEL = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<arch>\d+)\w*'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def readable(names):
    """C++ names as written, without arguments."""
    found = shutil.which("c++filt")
    if found:
        done = subprocess.run([found, "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
        names = done.stdout.splitlines()
    return [name.replace("(anonymous namespace)::", "").replace("hd::cuda::", "") for name in names]


@pytest.mark.nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source", sorted(CSRC.glob("*.cu")), ids=lambda source: source.stem)
def test_compiles_without_spills(source, tmp_path):
    """Prints registers, bytes of stack and of spills by kernel and architecture; pytest -rP shows them."""
    done = subprocess.run(
        [
            *("nvcc", "-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v"),
            *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS),
            *("--threads", str(os.cpu_count()), "-fatbin", str(source), "-o", str(tmp_path / "kernels.fatbin")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    kernels = [match.groupdict() for match in KERNEL.finditer(done.stdout)]
    rows = [
        f"{name}  sm_{kernel['arch']}  {kernel['registers']} registers, {kernel['stack']} stack, "
        f"{kernel['stores']} + {kernel['loads']} spilled"
        for name, kernel in zip(readable(kernel["kernel"] for kernel in kernels), kernels, strict=True)
    ]
    report = "\n".join(sorted(rows))
    (tmp_path / "report.txt").write_text(report + "\n")
    print(report)
    assert {int(kernel["arch"]) for kernel in kernels} == set(ARCHS)
    assert not [row for row in rows if not row.endswith(" 0 + 0 spilled")]
