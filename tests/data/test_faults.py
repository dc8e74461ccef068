"""Faults of one kind become few lines, and nothing that differs is joined."""

from __future__ import annotations

from pathlib import Path

from hdgan.data.faults import FaultKind, grouped, kind_of

ROOT = Path("/set")


def faults_of(texts: dict[str, str]) -> dict[str, FaultKind]:
    """Faults of single files: what is said of each file."""
    lines = {f"{ROOT / name} {text}": ROOT / name for name, text in texts.items()}
    return {line: kind_of(line, [file]) for line, file in lines.items()}


def lines_of(kinds: dict[str, FaultKind], *others: str) -> list[str]:
    return list(grouped([*kinds, *others], kinds, ROOT))


def test_equal_faults_are_named_once() -> None:
    kinds = faults_of({f"a/{k} {k}.png": "is empty; remove it" for k in range(9)})
    first, others = lines_of(kinds)
    assert first == "/set/a/0 0.png is empty; remove it"
    assert others == "the same in a/1 1.png, a/2 2.png, a/3 3.png and 5 more"
    assert lines_of(faults_of({f"{k}.png": "is empty" for k in range(4)}))[1] == "the same in 1.png, 2.png, 3.png"


def test_few_faults_are_printed_in_full() -> None:
    kinds = faults_of({f"{k}.png": "is empty" for k in range(3)})
    assert lines_of(kinds) == list(kinds)


def test_other_numbers_are_the_same_kind_of_fault() -> None:
    says = (
        "label 7, but",
        "labels 3, 9, ..., but",
        "label -1, but",
        "label 255, but",
        "label 8, 9, but",
        "label 6, but",
    )
    kinds = faults_of({f"{k}.png": f"contains {text} n is 3" for k, text in enumerate(says)})
    assert lines_of(kinds) == [
        "/set/0.png contains label 7, but n is 3",
        "the same, but for the numbers, in 3.png, 4.png, 5.png",
        "/set/1.png contains labels 3, 9, ..., but n is 3",
        "/set/2.png contains label -1, but n is 3",
    ]


def test_other_faults_stay_apart() -> None:
    kinds = faults_of({f"{k}.png": "is empty" for k in range(4)}) | faults_of({"x.png": "is grey"})
    assert lines_of(kinds, "/set has no photos") == [
        "/set/0.png is empty", "the same in 1.png, 2.png, 3.png", "/set/x.png is grey", "/set has no photos"
    ]  # fmt: skip


def test_files_are_told_from_what_is_said_of_them() -> None:
    def pair(name: str, size: str) -> FaultKind:
        label, photo = ROOT / f"{name}.png", ROOT / f"{name}.png.jpg"
        return kind_of(f"{label} is 2x2, but {photo} is {size}", [label, photo])

    assert pair("a", "3x3").text == "FILE is 2x2, but FILE is 3x3"
    assert pair("a", "3x3").kind == pair("b", "4x4").kind
    assert pair("a", "3x3").text != pair("b", "4x4").text
    missing = kind_of("/set/a.png: no photo named a in /set/img; add it", [ROOT / "a.png"], "a")
    assert missing.kind == kind_of("/set/b.png: no photo named b in /set/img; add it", [ROOT / "b.png"], "b").kind
    elsewhere = kind_of("the index is damaged", [Path("/other/x.png")])
    assert elsewhere.file == Path("/other/x.png")
