"""Pickles that lie, and those of PyTorch's that are read without running anything."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from hdgan.errors import CheckpointError
from hdgan.weights.pickles import Unknown, read_pickle

HERE = Path("file.pth")


def read(content: bytes) -> Any:
    return read_pickle(BytesIO(content), HERE).content


@pytest.mark.parametrize("protocol", range(5))
def test_plain_values_are_those_that_were_written(protocol: int) -> None:
    value = {"a": [1, -5, 2**70, 0.5, None, True, "é", (1,), (1, 2, 3, 4)], "b": {3: {}, None: []}, "c": ()}
    assert read(pickle.dumps(value, protocol)) == value
    assert read(pickle.dumps(OrderedDict(x=1, y=[2]), protocol)) == {"x": 1, "y": [2]}


def test_nothing_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    class Printing:
        def __reduce__(self) -> Any:
            return print, ("called",)

    found = read(pickle.dumps(Printing(), 2))
    assert isinstance(found, Unknown)
    assert found.name in ("builtins.print", "__builtin__.print")
    assert capsys.readouterr().out == ""


def test_a_memo_of_any_number_takes_no_memory() -> None:
    assert read(b"\x80\x02Nr\xff\xff\xff\x7f.") is None


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02\x8e" + struct.pack("<Q", 2**62) + b".",
        b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"abc.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
        b"\x80\x02I" + b"9" * 10_000 + b"\n.",
        b"\x80\x02})" + b"\x85" * 50_000 + b"Ns.",  # hashing a key that is nested so deeply would end the process
        b"\x80\x02N",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x02N]a.",
    ],
    ids=["bytes", "text", "long", "digits", "key", "cut", "memo", "mark", "append"],
)
def test_sizes_that_lie_and_damage_are_errors(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        read(content)


def test_the_limit_bounds_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDGAN_MAX_GIB", str(1 / 1024))
    with pytest.raises(CheckpointError, match=r"file\.pth is a pickle of too many objects, .* HDGAN_MAX_GIB"):
        read(b"\x80\x02" + b"]" * 2000 + b".")


PAIRS = b"".join(b"M" + struct.pack("<H", number) + b"N\x86" for number in range(9999))


@pytest.mark.parametrize(
    ("remembered", "repeated"),
    [
        (b"ccollections\nOrderedDict\nq\x00](" + PAIRS + b"e\x85q\x01", b"h\x00h\x01R"),
        (b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00", b"h\x00h\x00\x93"),
    ],
    ids=["tables", "names"],
)
def test_what_is_mentioned_often_is_not_copied_as_often(remembered: bytes, repeated: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((CheckpointError, ValueError)):
            read(b"\x80\x02" + remembered + repeated * 20_000 + b".")
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


def test_an_enormous_frame_is_only_a_number() -> None:
    assert read(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"K\x07.") == 7
