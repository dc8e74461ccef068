"""Options of `pytest benchmarks`, and the speed-ups at its end."""

from __future__ import annotations

from typing import Any

import pytest

from hdgan.benchmarks.runner import DTYPES


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hdgan")
    group.addoption("--device", default="cpu", choices=["cpu", "cuda"])
    group.addoption("--dtype", default="float32", choices=list(DTYPES))
    group.addoption("--no-compile", action="store_true", help="leave torch.compile out")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    groups: dict[str, dict[str, float]] = {}
    for bench in getattr(session, "benchmarks", []):
        if bench.stats:
            groups.setdefault(bench.group, {})[bench.extra_info["implementation"]] = bench.stats.median
    if not groups:
        return
    terminalreporter.section("speed-up over eager of the same layout, by medians")
    for group, medians in groups.items():
        for name, median in medians.items():
            ratio = f"{medians['eager'] / median:5.2f}x" if "eager" in medians else ""
            terminalreporter.write_line(f"{group:70} {name:12} {median * 1e3:9.2f} ms  {ratio}")
