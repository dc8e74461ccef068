"""The CUDA kernels, run on the host under sanitizers, and the emulator itself, which must find planted faults."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.csrc.build_emulated import COUNTED, HERE, SANITIZED, build_extension, build_program, sanitizer_environment

ROOT = HERE.parent.parent


@pytest.fixture(scope="session")
def module(request):
    return build_extension(Path(request.config.cache.mkdir("emulated")))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Compile a program of tests/csrc/programs once."""
    made = {}

    def program(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("programs") / name
            build_program(HERE / "programs" / f"{name}.cu", made[name], COUNTED if name == "races" else SANITIZED)
        return made[name]

    return program


def run(*command, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=clean | {"ASAN_OPTIONS": "detect_leaks=0"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def run_op_tests(module, tests, which, **environment):
    """How many tests passed, all of them."""
    status, output = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests),
        "--capture=sys",  # what a sanitizer says as it ends the process must get out
        *("-k", which),
        HDGAN_TEST_EMULATED=str(module),
        **sanitizer_environment(),
        **environment,
    )
    print(output)
    assert status == 0
    return int(re.search(r"(\d+) passed", output)[1])


@pytest.mark.slow
def test_kernels(module):
    """The tests of all ops on emulated CUDA and on the CPU, but for torch.compile, which is no different there."""
    assert run_op_tests(module, "tests/ops", "(cuda or cpu) and not compile and not opcheck") >= 100


@pytest.mark.slow
def test_norm_on_a_small_device(module):
    """Twelve KiB of shared memory: contiguous planes take several turns of all blocks, or do not fit at all."""
    tests, which = "tests/ops/test_instance_norm_act.py", "cuda and memory_format0 and not compile and not opcheck"
    assert run_op_tests(module, tests, which, HDGAN_EMULATED_SHARED=str(12 << 10)) >= 25


def test_sound_program(programs):
    assert run(programs("faults"), "none")[0] == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing_barrier", "wrong result at 0: -?nan"),
        ("shared_overrun", "heap-buffer-overflow"),
        ("static_overrun", "insufficient space|global-buffer-overflow"),
        ("local_overrun", "stack-buffer-overflow"),
        ("global_overrun", "heap-buffer-overflow"),
        ("divergent_barrier", r"6 threads wait at __shfl_xor_sync.*; 90 threads wait at __syncthreads"),
        ("early_exit", r"6 threads exited.*; 90 threads wait at __syncthreads"),
        ("shuffle_range", "__shfl_sync: lane operand 32 is out of range"),
        ("shuffle_mask", "reads a lane that the mask leaves out"),
        ("overflow", "signed integer overflow"),
        ("misaligned", "misaligned address"),
        ("too_much_shared", "more shared memory"),
        ("too_many_threads", "invalid configuration"),
    ],
)
def test_planted_fault_is_found(programs, fault, says):
    status, output = run(programs("faults"), fault)
    assert status != 0
    assert re.search(says, output), output


def test_sound_program_whose_blocks_wait_for_each_other(programs):
    status, output = run(programs("grid_faults"), "none")
    assert status == 0, output


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("unsignalled", r"deadlock: .*12 threads wait at await, .*grid_faults.cu:\d+, for 12 of a counter that is 11"),
        ("block_missing_at_grid_sync", r"deadlock: .*5632 threads wait at grid_sync"),
        ("too_many_blocks", "too many blocks in cooperative launch"),
        ("static_shared", "static __shared__ variable in a cooperative kernel .*block"),
        ("not_cooperative", "grid_sync in a kernel whose launch is not cooperative"),
    ],
)
def test_planted_fault_between_blocks_is_found(programs, fault, says):
    status, output = run(programs("grid_faults"), fault)
    assert status == 1
    assert re.search(says, output), output


def test_sound_program_has_no_race(programs):
    status, output = run(programs("races"), "none")
    assert status == 0, output


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing_await", r"of parts: a write at races.cu:\d+ \(block .*\) and a read at races.cu:\d+ \(block"),
        ("missing_signal_order", "of parts: a write at races.cu:.* and a read at races.cu:"),
        ("missing_barrier_before_signal", "of parts: a write at races.cu:.* and a read at races.cu:"),
        ("missing_barrier_after_await", "of parts: a write at races.cu:.* and a read at races.cu:"),
        ("awaits_too_few", "of parts: a write at races.cu:.* and a read at races.cu:"),
        ("written_after_signal", "of parts: a .* at races.cu:.* and a .* at races.cu:"),
        ("missing_grid_sync", "element 0 of counter: .*an atomic access"),
        ("missing_fence", "of parts: a write at races.cu:.* and a read at races.cu:"),
        ("overlapping_blocks", "of totals: a write at races.cu:.* and a write at races.cu:"),
    ],
)
def test_planted_race_is_found(programs, fault, says):
    status, output = run(programs("races"), fault)
    assert status == 1
    assert re.search(says, output), output


def test_primitives(programs):
    status, output = run(programs("primitives"))
    assert status == 0, output
