"""Every Triton kernel, compiled for GPUs that are not there: it must compile and keep its values in registers."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ARCHS = {80, 90, 100, 120}
STEMS = [file.stem for file in sorted((ROOT / "kernels").glob("[!_]*.py")) if file.stem != "common"]


@pytest.fixture(scope="session")
def compilations(request):
    """By stem, the process that compiles its kernels. They start together; what has not changed is kept."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(request.config.cache.mkdir("triton"))

    def compiled(stem):
        command = [sys.executable, "-m", "tests.kernels.compile_aot", stem]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {stem: pool.submit(compiled, stem) for stem in STEMS}


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_compiles_without_spills(compilations, stem):
    """Prints what each compilation used; pytest -rP shows it."""
    done = compilations[stem].result()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for row in found["compiled"]:
        print(*(f"{key} {value}" for key, value in row.items()))
    assert found["kernels"]
    assert {(row["kernel"], row["arch"]) for row in found["compiled"]} == {
        (kernel, arch) for kernel in found["kernels"] for arch in ARCHS
    }
    assert not [row for row in found["compiled"] if row["spilled"]]
