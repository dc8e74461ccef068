"""Samples for training and for validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.data.conversion.source import ConversionOptions, RawSample
from hdgan.data.conversion.splitting import divided
from hdgan.errors import ConfigError, DataError


def samples(*names: str, phase: str = "") -> list[RawSample]:
    return [RawSample(name, (Path(name),), None, phase=phase) for name in names]


def phases(of: list[RawSample], **options: object) -> dict[str, str]:
    return {sample.stem: sample.phase for sample in divided(of, ConversionOptions(Path("x"), **options))[0]}


def test_a_sample_stays_in_its_phase_when_others_come() -> None:
    names = [f"frame {k}" for k in range(1000)]
    few, many = phases(samples(*names[:200]), val_fraction=0.2), phases(samples(*names[::-1]), val_fraction=0.2)
    assert all(many[name] == phase for name, phase in few.items())
    assert 150 < list(many.values()).count("val") < 250
    more = phases(samples(*names), val_fraction=0.3)
    assert all(more[name] == "val" for name, phase in many.items() if phase == "val")


def test_fractions() -> None:
    names = [str(k) for k in range(300)]
    assert set(phases(samples(*names), val_fraction=0.0).values()) == {"train"}
    assert set(phases(samples(*names), val_fraction=1.0).values()) == {"val"}
    assert list(phases(samples(*names)).values()).count("val") == 28
    assert all(phases(samples(name)) == {name: "train"} for name in names)


def test_a_list_names_the_samples_for_validation(tmp_path) -> None:
    file = tmp_path / "val.txt"
    file.write_text("a\nnorth/b.jpg\n\nimages/c.png\n", encoding="utf-8")
    found = phases(samples("a", "north/b", "south/b", "c", "d"), val_list=file)
    assert [name for name, phase in found.items() if phase == "val"] == ["a", "north/b", "c"]
    file.write_text("a\nb\n")
    assert set(phases(samples("a", "b"), val_list=file).values()) == {"val"}
    file.write_text("b\n")
    with pytest.raises(DataError, match="names b, which may be north/b, south/b: write the folder as well"):
        phases(samples("north/b", "south/b"), val_list=file)
    file.write_text("a\nx\ny\n")
    with pytest.raises(DataError, match="names x, y, but the source has no such sample"):
        phases(samples("a"), val_list=file)


def test_the_phases_of_the_source_hold(tmp_path) -> None:
    given = [*samples("a", phase="train"), *samples("b", phase="val"), *samples("c")]
    assert phases(given) == {"a": "train", "b": "val", "c": "train"}
    with pytest.raises(ConfigError, match="val_fraction has no effect, since the source has the phases"):
        phases(given, val_fraction=0.5)
    with pytest.raises(ConfigError, match="both choose the samples of val"):
        phases(samples("a"), val_fraction=0.5, val_list=tmp_path)


def test_a_source_with_validation_alone_is_divided_anew() -> None:
    assert phases(samples("a", "b", phase="val"), val_fraction=0.0) == {"a": "train", "b": "train"}
