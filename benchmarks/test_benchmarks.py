"""`pytest benchmarks`: the trials of `hdgan bench`, timed by pytest-benchmark.

    pytest benchmarks                        on the CPU
    pytest benchmarks --device cuda          on a GPU
    pytest benchmarks -k instance_norm_act   one op

Every contestant is compared with float32 truth before it is timed. Ratios hold within a run only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hdgan.benchmarks.runner import COMPILED, check
from hdgan.benchmarks.suite import Job, Options, available, choose
from hdgan.benchmarks.timing import exact_float32
from hdgan.devices import choose_device

ROUNDS = {"cpu": 9, "cuda": 50}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    device = choose_device(option("--device"))
    left_out = set(COMPILED) if option("--no-compile") else set()
    contestants = tuple(name for name in available(device) if name not in left_out)
    jobs = [
        replace(job, context=replace(job.context, contestants=(contestant,)))
        for job in choose(Options(device, dtypes=(option("--dtype"),), contestants=contestants))
        for contestant in job.context.contestants
    ]
    metafunc.parametrize("job", jobs, ids=[f"{job}-{job.context.contestants[0]}" for job in jobs])


def test_speed(benchmark: Any, job: Job) -> None:
    """Forward and backward together where there is a gradient."""
    device = job.context.device
    with exact_float32(), job.trial(job.context.contestants[0]) as trial:
        check(trial)

        def finished() -> None:
            trial.call()
            if device.type == "cuda":
                torch.cuda.synchronize()

        benchmark.group = str(job)
        benchmark.extra_info["contestant"] = trial.contestant
        benchmark.pedantic(finished, rounds=ROUNDS[device.type], warmup_rounds=1)
