from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Interval

from hdgan.config.serialization import check_value, check_values, from_plain, to_plain
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import GeneratorConfig, Pix2PixConfig, Pix2PixHDConfig, ResNetConfig, UNetConfig


@dataclass(frozen=True)
class Inner:
    n: int = 1
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ConfigError(f"n is {self.n}; it must be at least 0")


Level = Annotated[int, Interval(ge=0, le=9)]


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.5
    on: bool = False
    root: Path | None = None
    inner: Inner = Inner()
    maybe: Inner | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    sizes: tuple[int, ...] = ()
    stages: tuple[Inner, ...] = ()
    names: list[str] = field(default_factory=list)
    colors: dict[str, Inner] = field(default_factory=dict)
    pairs: dict[str, tuple[int, int]] = field(default_factory=dict)
    either: int | str = 0
    anything: Any = None
    level: Level | None = None
    levels: tuple[Level, ...] = ()
    share: Annotated[float, Interval(gt=0, lt=1)] = 0.5


FULL = Outer(
    "run",
    rate=2.0,
    on=True,
    root=Path("some") / "folder",
    inner=Inner(3, "b"),
    maybe=Inner(4),
    betas=(0.0, 0.9),
    sizes=(1, 2, 3),
    stages=(Inner(1), Inner(2, "b")),
    names=["x"],
    colors={"road": Inner(7)},
    pairs={"a": (1, 2)},
    either="text",
    anything={"k": [1, None]},
)


@pytest.mark.parametrize("config", [Outer("run"), FULL, Pix2PixHDConfig(dontcare=3, generator=GeneratorConfig(32))])
def test_round_trip_through_json(config):
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(type(config), plain, "file") == config


def test_types_come_back():
    back = from_plain(Outer, to_plain(FULL), "file")
    assert isinstance(back.root, Path)
    assert isinstance(back.sizes, tuple)
    assert isinstance(back.stages[0], Inner)
    assert isinstance(back.colors["road"], Inner)


def test_missing_options_keep_their_defaults():
    assert from_plain(Outer, {"name": "run", "inner": {"n": 5}}, "file") == Outer("run", inner=Inner(5))


def test_whole_number_as_float():
    rate = from_plain(Outer, {"name": "run", "rate": 2}, "file").rate
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": 1}, "unknown option colour;"),
        ({"inner": {"m": 1, "k": 2}}, r"unknown option inner\.m, inner\.k"),
        ({"stages": [{}, {"m": 1}]}, r"unknown option stages\[1\]\.m"),
        ({"colors": {"road": {"m": 1}}}, r"unknown option colors\.road\.m"),
        ({"inner": 3}, "inner is 3: give a table of Inner"),
        ({"inner": {"n": 1.5}}, r"inner\.n is 1\.5: give a whole number"),
        ({"inner": {"n": True}}, r"inner\.n is True: give a whole number"),
        ({"inner": {"n": -1}}, "inner: n is -1; it must be at least 0"),
        ({"inner": {"mode": "c"}}, r"inner\.mode is 'c': give a or b"),
        ({"on": 1}, "on is 1: give true or false"),
        ({"name": None}, "name is None: give text"),
        ({"name": "a\0b"}, "name is 'a.*b': give text"),
        ({"root": 3}, "root is 3: give a path"),
        ({"root": "caf\udce9"}, r"root is .*caf.*: give a path"),
        ({"rate": "fast"}, "rate is 'fast': give a number"),
        ({"rate": float("nan")}, "rate is nan: give a number"),
        ({"rate": 10**400}, "rate is a number of more than 399 digits: give a number"),
        ({"betas": [1.0]}, r"betas is \[1.0\]: give a list of 2"),
        ({"sizes": 3}, "sizes is 3: give a list"),
        ({"sizes": [1, "x"]}, r"sizes\[1\] is 'x': give a whole number"),
        ({"colors": []}, r"colors is \[\]: give a table"),
        ({"either": 1.5}, "either is 1.5: give a whole number or text"),
        ({"name": 7, "anything": "x"}, "name is 7: give text"),
        ({"level": 10}, "level is 10: give a whole number from 0 to 9"),
        ({"levels": [0, -1]}, r"levels\[1\] is -1: give a whole number from 0 to 9"),
        ({"share": 0}, r"share is 0\.0: give a number above 0 and below 1"),
        ({"share": 1}, r"share is 1\.0: give a number above 0 and below 1"),
    ],
)
def test_wrong_values_are_named(change, says):
    with pytest.raises(CheckpointError, match=f"^config of run: .*{says}"):
        from_plain(Outer, {"name": "run"} | change, "config of run")


def test_required_option():
    with pytest.raises(CheckpointError, match="option name is missing"):
        from_plain(Outer, {}, "file")


def test_long_values_are_shortened():
    with pytest.raises(CheckpointError) as caught:
        from_plain(Outer, {"name": ["x"] * 1000}, "file")
    assert len(str(caught.value)) < 150


def test_deep_values_are_shortened():
    """Printing them whole would end in a RecursionError."""
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CheckpointError, match=r"rate is \[\[\["):
        from_plain(Outer, {"name": "run", "rate": deep}, "file")


def test_a_config_in_memory_is_checked_like_a_file() -> None:
    check_values(FULL)
    for wrong, complaint in (
        ({"stages": (Inner(mode="c"),)}, r"^run\.stages\[0\]\.mode is 'c': give a or b$"),  # type: ignore[arg-type]
        ({"colors": {"road": Inner(n=1.5)}}, r"^run\.colors\.road\.n is 1\.5: give a whole number$"),  # type: ignore[arg-type]
        ({"level": 10}, r"^run\.level is 10: give a whole number from 0 to 9$"),
        ({"inner": {"n": 1}}, r"^run\.inner is \{'n': 1\}: give a table of Inner$"),
        ({"root": "folder"}, r"^run\.root is 'folder': give a path$"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            check_values(replace(FULL, **wrong), "run")
    check_value(Level, 9, "level")
    with pytest.raises(ConfigError, match=r"^level is 10: give a whole number from 0 to 9$"):
        check_value(Level, 10, "level")


def test_values_that_cannot_be_stored():
    with pytest.raises(ConfigError, match="is not UTF-8: rename it"):
        to_plain(Outer("caf\udce9"))
    with pytest.raises(TypeError, match="cannot store a set"):
        to_plain(Outer("run", anything={1, 2}))


@dataclass(frozen=True)
class Cat:
    family: Literal["cat"] = "cat"
    lives: int = 9


@dataclass(frozen=True)
class Dog:
    family: Literal["dog"] = "dog"
    tricks: int = 0


@dataclass(frozen=True)
class Owner:
    pet: Cat | Dog = Cat()


def test_a_union_of_families_is_told_apart_by_its_field() -> None:
    for pet in (Cat(lives=3), Dog(tricks=2)):
        assert from_plain(Owner, to_plain(Owner(pet)), "file") == Owner(pet)
    assert from_plain(Owner, {"pet": {"lives": 4}}, "file") == Owner(Cat(lives=4))  # older files name no family
    with pytest.raises(CheckpointError, match=r"file: unknown option pet\.lives;"):
        from_plain(Owner, {"pet": {"family": "dog", "lives": 4}}, "file")
    with pytest.raises(CheckpointError, match=r"file: pet\.family is 'cow': give cat or dog"):
        from_plain(Owner, {"pet": {"family": "cow"}}, "file")
    for wrong in (["dog"], {"dog": 1}, 3, None):
        with pytest.raises(CheckpointError, match=r"pet\.family is .*: give cat or dog"):
            from_plain(Owner, {"pet": {"family": wrong}}, "file")
    with pytest.raises(CheckpointError, match="pet is 'dog': give a table of Cat"):
        from_plain(Owner, {"pet": "dog"}, "file")


def test_any_literal_tells_a_union_apart() -> None:
    for generator in (UNetConfig(n_downs=3), ResNetConfig(n_blocks=2)):
        config = Pix2PixConfig(generator=generator)
        assert from_plain(Pix2PixConfig, json.loads(json.dumps(to_plain(config))), "file") == config
    with pytest.raises(CheckpointError, match=r"file: unknown option generator\.dropout;"):
        from_plain(Pix2PixConfig, {"generator": {"ngf": 32, "dropout": True}}, "file")
    with pytest.raises(CheckpointError, match=r"generator\.n_downs is 'deep': give a whole number from 2 to 12"):
        from_plain(Pix2PixConfig, {"generator": {"n_downs": "deep"}}, "file")
    resnet = from_plain(Pix2PixConfig, {"generator": {"kind": "resnet", "dropout": False}}, "file")
    assert resnet.generator == ResNetConfig(dropout=False)


def test_a_union_that_nothing_tells_apart() -> None:
    with pytest.raises(TypeError, match="no Literal tells Cat, Inner apart"):
        from_plain(Cat | Inner, {}, "file")
