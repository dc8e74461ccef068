"""The cores at hand: those that the system grants, not those that the machine has."""

from __future__ import annotations

import os

import pytest

from hdgan.cores import available_cores


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 12), ("350000 100000", 3), ("5000 100000", 1), (None, 12), ("garbage", 12)]
)
def test_a_container_may_grant_fewer_cores(tmp_path, monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cores(tmp_path) == expected
