"""Errors call files as the user does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from hdgan import errors
from hdgan.errors import CheckpointError, ConfigError, call, called


@pytest.fixture(autouse=True)
def _no_names_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(errors, "_aliases", {})
    return


def test_a_file_of_a_folder_is_called_by_both_names() -> None:
    call(Path("/cache/a b/c0"), "hf:a/b", "delete it")
    assert str(ConfigError("--x /cache/a b/c0/m.safetensors has no y.")) == "--x hf:a/b (m.safetensors) has no y."
    assert str(CheckpointError("/cache/a b/c0/m.x, train is 3")) == "hf:a/b (m.x), train is 3; delete it"
    assert str(CheckpointError("/cache/a b/c0 is no folder: see /cache/a b/c0/m.x.")) == (
        "hf:a/b is no folder: see hf:a/b (m.x).; delete it"
    )
    for other in ("/cache/a b/c01/m.x is bad", "/cache/a b is bad"):
        assert str(CheckpointError(other)) == other


def test_a_file_is_called_by_its_name() -> None:
    call("/tmp/x/model", "runs/mine/model")
    assert str(CheckpointError("/tmp/x/model: w is NaN")) == "runs/mine/model: w is NaN"
    call("/tmp/x/model", "theirs")
    assert str(CheckpointError("/tmp/x/model: w is NaN")) == "theirs: w is NaN"


def test_a_name_may_be_of_what_has_a_name() -> None:
    call("/cache/c0", "hf:a/b", "delete it")
    call("/tmp/x/model", "/cache/c0/model")
    assert str(CheckpointError("/tmp/x/model: w is NaN")) == "hf:a/b (model): w is NaN"


def test_an_error_that_is_passed_on_stays_the_same() -> None:
    call("/cache/c0", "hf:a/b", "delete it")
    error = CheckpointError("/cache/c0/m.x is bad")
    assert str(copy.copy(error)) == str(CheckpointError(error)) == str(error) == "hf:a/b (m.x) is bad; delete it"


def test_pages_may_name_a_file_as_errors_do() -> None:
    call("/cache/a b/c0", "hf:a/b", "delete it")
    assert called(Path("/cache/a b/c0/m.safetensors")) == "hf:a/b (m.safetensors)"
    assert called("/cache/other") == "/cache/other"
