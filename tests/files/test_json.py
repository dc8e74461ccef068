"""JSON that is damaged, or made to damage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hdgan.errors import CheckpointError, DataError
from hdgan.files.json import parse_json, read_json


@dataclass(frozen=True)
class Entry:
    name: str
    size: int = 0


WRONG = {
    b"": "Expecting value",
    b'{"size": 1': "Expecting ',' delimiter",
    b'"caf\xe9"': "its text is not UTF-8",
    b'"\\ud800"': "its text is not UTF-8",
    b'{"\\udfff": 1}': "its text is not UTF-8",
    b"[NaN]": "NaN is not a JSON value",
    b"[-Infinity]": "-Infinity is not a JSON value",
    b"[1e999]": "1e999 is beyond the largest number",
    b"[" + b"7" * 6000 + b"]": "77777777777777777777… is a number of 6000 digits",
    b'{"a": 1, "b": 2, "a": 3}': "it has 'a' twice",
    b"[" * 100_000: "nested too deeply",
    b'{"a":' * 100_000: "nested too deeply",
    b"[" * 100_000 + b"]" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize(("content", "says"), WRONG.items(), ids=[text[:12].hex() for text in WRONG])
def test_what_is_no_json_is_refused_in_one_line(content: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_json(content, "list.json", "write it again", DataError)
    message = str(caught.value)
    assert message.startswith("list.json is damaged (")
    assert says in message
    assert message.endswith("): write it again")
    assert len(message) < 200


def test_what_is_json() -> None:
    value = {"whole": -(2**63), "half": 0.5, "text": "caf\u00e9 \U0001f600", "list": [None, True, {}]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), "\ufeff" + json.dumps(value)):
        assert parse_json(text, "file") == value
        assert parse_json(text.encode(), "file") == value
    with pytest.raises(CheckpointError, match="not UTF-8"):
        parse_json('"\udce9"', "file")


def test_a_file_becomes_a_dataclass(tmp_path: Path) -> None:
    file = tmp_path / "entry.json"
    file.write_text('{"name": "x", "size": 3}', encoding="utf-8")
    assert read_json(file, Entry) == Entry("x", 3)
    assert read_json(file, dict) == {"name": "x", "size": 3}
    file.write_text('{"name": "x", "size": "3"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"entry\.json: size is '3': give a whole number"):
        read_json(file, Entry, error=DataError)
    file.write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"entry\.json: the content is \[\]: give a table of Entry"):
        read_json(file, Entry)


def test_a_file_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as stream:
        stream.truncate(100 * 2**20)
    with pytest.raises(CheckpointError, match=r"large\.json is a JSON file of 104857600 bytes, which takes 3\.1 GiB"):
        read_json(file, dict)
