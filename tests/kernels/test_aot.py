"""Every Triton kernel, compiled for GPUs that are not there: it must compile and keep its values in registers."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ARCHS = {70, 80, 90, 100, 120}
NARROW = {
    # Variant and kernel: loads and stores of two bytes, at most. Everything else goes by more.
    ("last up nchw", "instance_norm_act_fwd_kernel"): (4, 4),  # pixels at both ends of rows, outside of whole groups
    ("last up nchw", "instance_norm_act_bwd_kernel"): (40, 4),  # the same, and the borders that they were copied to
    ("residual nchw", "instance_norm_act_fwd_kernel"): (8, 4),
    ("residual nchw", "instance_norm_act_bwd_kernel"): (40, 8),
    ("odd planes nchw", "instance_norm_act_stats_kernel"): (65, 0),  # the first and the last tile of a plane
    ("odd planes nchw", "instance_norm_act_fwd_kernel"): (32, 32),
    ("odd planes nchw", "instance_norm_act_bwd_kernel"): (32, 16),
    ("39 channels nchw", "avg_pyramid_fwd_kernel"): (0, 2),  # the quarter level: one pixel of a cell's 21
    ("39 channels nchw", "avg_pyramid_bwd_kernel"): (8, 0),
    ("3 channels nchw", "avg_pyramid_fwd_kernel"): (0, 2),
    ("3 channels nchw", "avg_pyramid_bwd_kernel"): (8, 0),
}
PIXELS_OF_PLANES = {"instance_norm_act_stats_kernel": 1, "instance_norm_act_merge_stats_kernel": 4}
"""Loads of the first pixels of planes, one for each plane."""
STEMS = [file.stem for file in sorted((ROOT / "kernels").glob("[!_]*.py")) if file.stem != "common"]


@pytest.fixture(scope="session")
def environment(request):
    """That of a process that compiles. What has not changed is kept."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return environment | {"TRITON_CACHE_DIR": str(request.config.cache.mkdir("triton"))}


@pytest.fixture(scope="session")
def compilations(environment):
    """By stem, the process that compiles its kernels. They start together."""

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
    assert not [row for row in found["compiled"] if row.get("spilled")]


@pytest.mark.slow
def test_images_are_accessed_by_16_bytes(environment):
    """Prints what each compilation has; pytest -rP shows it."""
    command = [sys.executable, "-m", "tests.kernels.hot_variants"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {name for name, _ in NARROW} < {row["variant"] for row in rows}
    for row in rows:
        print(*(f"{key} {value}" for key, value in row.items()))
        kernel = row["kernel"]
        loads, stores = NARROW.get((row["variant"], kernel), (PIXELS_OF_PLANES.get(kernel, 0), 0))
        assert row["ld"].get("2", 0) <= loads, row
        assert row["st"].get("2", 0) <= stores, row
        # Class maps have one or four bytes a pixel, and are read once. A thread has 4 or 8 bytes of a level of the
        # pyramid where it has 16 of a finer one. Statistics and sums are few numbers.
        narrow_loads = kernel.startswith(("encode_labels", "instance_norm_act_merge", "avg_pyramid_bwd"))
        assert narrow_loads or "16" in row["ld"], row
        assert "16" in row["st"] or kernel == "avg_pyramid_fwd_kernel" or row["st"].keys() == {"4"}, row
        assert row["spilled"] == 0, row
