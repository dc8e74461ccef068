"""`pytest benchmarks`: the trials of `hdgan bench`, timed by pytest-benchmark.

    pytest benchmarks                        on the CPU
    pytest benchmarks --device cuda          on a GPU
    pytest benchmarks -k instance_norm_act   one op

Every implementation is compared with float32 truth before it is timed. Ratios hold within a run only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hdgan.benchmarks.runner import BOTH, COMPILED, check
from hdgan.benchmarks.suite import Case, Selection, available, choose
from hdgan.benchmarks.timing import exact_float32
from hdgan.devices import choose_device

ROUNDS = {"cpu": 9, "cuda": 50}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    device = choose_device(option("--device"))
    left_out = {*COMPILED, BOTH} if option("--no-compile") else set()
    implementations = tuple(name for name in available(device) if name not in left_out)
    cases = [
        replace(case, context=replace(case.context, implementations=(implementation,)))
        for case in choose(Selection(device, dtypes=(option("--dtype"),), implementations=implementations))
        for implementation in case.context.implementations
    ]
    metafunc.parametrize("case", cases, ids=[f"{case}-{case.context.implementations[0]}" for case in cases])


def test_speed(benchmark: Any, case: Case) -> None:
    """Forward and backward together where there is a gradient."""
    device = case.context.device
    with exact_float32(), case.trial(case.context.implementations[0]) as trial:
        check(trial)

        def finished() -> None:
            trial.call()
            if device.type == "cuda":
                torch.cuda.synchronize()

        benchmark.group = str(case)
        benchmark.extra_info["implementation"] = trial.implementation
        benchmark.pedantic(finished, rounds=ROUNDS[device.type], warmup_rounds=1)
