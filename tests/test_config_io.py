from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from hdgan.config_io import from_plain, to_plain
from hdgan.errors import CheckpointError, ConfigError
from hdgan.models import GeneratorConfig, Pix2PixConfig, Pix2PixHDConfig, ResNetConfig, UNetConfig


@dataclass(frozen=True)
class Inner:
    n: int = 1
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ConfigError(f"n is {self.n}; it must be at least 0")


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
        ({"inner": 3}, "expected inner to be a table of Inner, got 3"),
        ({"inner": {"n": 1.5}}, r"expected inner\.n to be a value of type int, got 1\.5"),
        ({"inner": {"n": True}}, r"inner\.n to be a value of type int, got True"),
        ({"inner": {"n": -1}}, "inner: n is -1; it must be at least 0"),
        ({"inner": {"mode": "c"}}, r"inner\.mode to be 'a' or 'b', got 'c'"),
        ({"on": 1}, "expected on to be a value of type bool, got 1"),
        ({"name": None}, "expected name to be text, got None"),
        ({"root": 3}, "expected root to be text, got 3"),
        ({"rate": "fast"}, "expected rate to be a value of type float"),
        ({"betas": [1.0]}, r"expected betas to be a list of 2, got \[1.0\]"),
        ({"sizes": 3}, "expected sizes to be a list, got 3"),
        ({"sizes": [1, "x"]}, r"expected sizes\[1\] to be a value of type int"),
        ({"colors": []}, "expected colors to be a table"),
        ({"either": 1.5}, "expected either"),
        ({"name": 7, "anything": "x"}, "expected name to be text, got 7"),
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


def test_values_that_cannot_be_stored():
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
    with pytest.raises(CheckpointError, match=r"file: expected pet\.family to be 'cat' or 'dog', got 'cow'"):
        from_plain(Owner, {"pet": {"family": "cow"}}, "file")
    for wrong in (["dog"], {"dog": 1}, 3, None):
        with pytest.raises(CheckpointError, match=r"expected pet\.family to be 'cat' or 'dog', got "):
            from_plain(Owner, {"pet": {"family": wrong}}, "file")
    with pytest.raises(CheckpointError, match="expected pet to be a table of Cat, got 'dog'"):
        from_plain(Owner, {"pet": "dog"}, "file")


def test_any_literal_tells_a_union_apart() -> None:
    for generator in (UNetConfig(n_downs=3), ResNetConfig(n_blocks=2)):
        config = Pix2PixConfig(generator=generator)
        assert from_plain(Pix2PixConfig, json.loads(json.dumps(to_plain(config))), "file") == config
    with pytest.raises(CheckpointError, match=r"file: unknown option generator\.dropout;"):
        from_plain(Pix2PixConfig, {"generator": {"ngf": 32, "dropout": True}}, "file")
    with pytest.raises(CheckpointError, match=r"expected generator\.n_downs to be .*, got 'deep'"):
        from_plain(Pix2PixConfig, {"generator": {"n_downs": "deep"}}, "file")
    resnet = from_plain(Pix2PixConfig, {"generator": {"kind": "resnet", "dropout": False}}, "file")
    assert resnet.generator == ResNetConfig(dropout=False)


def test_a_union_that_nothing_tells_apart() -> None:
    with pytest.raises(TypeError, match="no Literal tells Cat, Inner apart"):
        from_plain(Cat | Inner, {}, "file")
