"""CSV that is damaged, or made to damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from hdgan.errors import DataError
from hdgan.files.csv import read_csv


@dataclass(frozen=True)
class Entry:
    name: str
    size: int
    share: float | None
    more: dict[str, float | None]


@dataclass(frozen=True)
class Newer:
    first: str
    second: int | None
    third: str = "old"


@dataclass(frozen=True, kw_only=True)
class Measured:
    name: str
    more: dict[str, float | None]
    by: str = "hand"


@dataclass(frozen=True)
class Pair:
    first: str
    second: int | None


def test_lines_become_objects(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('\ufeffname,size,share,a,b\n"x, ""y""",-3,,1,\n,4,0.5,,2e3\n', encoding="utf-8")
    assert read_csv(file, Entry, "", rest="more") == [
        Entry('x, "y"', -3, None, {"a": 1.0, "b": None}),
        Entry("", 4, 0.5, {"a": None, "b": 2000.0}),
    ]
    file.write_text("first,second\n1,\n")
    assert read_csv(file, Pair, "") == [Pair("1", None)]


def test_a_file_of_an_older_version_lacks_the_last_columns(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for content, expected in (("first,second\n1,2\n", "old"), ("first,second,third\n1,2,new\n", "new")):
        file.write_text(content)
        assert read_csv(file, Newer, "") == [Newer("1", 2, expected)]
    for content, by in (("name,a\nx,1\n", "hand"), ("name,by,a\nx,clock,1\n", "clock")):
        file.write_text(content)
        assert read_csv(file, Measured, "", rest="more") == [Measured(name="x", by=by, more={"a": 1.0})]
    for content in ("first\n1\n", "first,third\n1,new\n"):
        file.write_text(content)
        with pytest.raises(DataError, match="does not have the columns"):
            read_csv(file, Newer, "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"does not have the columns that this version of hdgan writes: delete it"),
        (b"first\nx\n", "does not have the columns"),
        (b"first,second,third\nx,1,2\n", "does not have the columns"),
        (b"first,second\nx,1\nx\n", "line 3: the number of fields is not that of the columns; restore"),
        (b"first,second\nx,1,2\n", "line 2: the number of fields is not that of the columns; restore"),
        (b"first,second\nx,many\n", "line 2: second is 'many': give a whole number; restore the file from git"),
        (b"first,second\nx," + b"9" * 6000 + b"\n", "line 2: second is '999"),
        (b"first,second\nx,1.0\n", r"line 2: second is '1\.0': give a whole number"),
        (b"first,second\n\xff\xfe,1\n", "is not UTF-8 at byte 13; restore"),
        (b"first,second\n" + b"x" * 200_000 + b",1\n", r"is not a CSV file \(field larger than field limit"),
        (b'first,second\n"x,1\n', "is not a CSV file"),
        (b"first,second\nx\0,1\n", r"is not a CSV file|give text"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_damage_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"t\.csv.*({says})") as caught:
        read_csv(file, Pair, "delete it")
    assert len(str(caught.value)) < 300 + len(str(file))


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_csv(tmp_path, Pair, "")
