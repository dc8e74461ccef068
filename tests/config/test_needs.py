"""Options that have no effect: refused when they are given, left out of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, get_args, get_type_hints

import pytest

from hdgan.config.needs import ON, Needs, beginning_with, needs_of
from hdgan.config.options import typed_as
from hdgan.config.serialization import check_values, from_plain, to_plain
from hdgan.errors import ConfigError
from hdgan.families.registry import PRESETS, AnyTrainConfig

OTHERS: dict[str, Any] = {
    "adaptive": True, "health_rollbacks": 7, "imagenet_normalisation": None, "network": "timm:resnet18",
    "network_weights": "weights.pth", "probability": 0.5, "r1_every": 3, "speed": 7, "target": 0.5,
    "vgg_layers": [0.0, 1.0, 0.0, 0.0, 0.0],
}  # fmt: skip
"""A value of each option that needs another one, which could be the default of another version; None negates it."""
IDLE: dict[str, Any] = {
    "adaptive": False, "health": "warn", "network": "n.pt2", "policy": [], "r1": 0.0, "vgg": 0.0,
}  # fmt: skip
"""Values of the options that they need with which they have no effect."""


def options_with_needs() -> list[tuple[str, str, str, str]]:
    """Preset, part of the run, option, and the option that it needs."""
    found = {
        (type(run).__name__, part, name, other): (preset, part, name, other)
        for preset, run in ((preset, make()) for preset, make in PRESETS.items())
        for part, config in [("", run), *((field.name, getattr(run, field.name)) for field in fields(run))]
        for name, needs in needs_of(type(config)).items()
        for other in needs
    }
    return list(found.values())


@pytest.mark.parametrize(("preset", "part", "name", "other"), options_with_needs())
def test_a_file_with_another_default_is_read(preset: str, part: str, name: str, other: str) -> None:
    plain = to_plain(PRESETS[preset]())
    options = plain[part] if part else plain
    options[other] = IDLE[other]
    run = from_plain(AnyTrainConfig, plain, "config.json")
    options[name] = not options[name] if OTHERS[name] is None else OTHERS[name]
    assert from_plain(AnyTrainConfig, plain, "config.json") == run


def test_all_options_are_tried() -> None:
    """Also those of parts that are nested more deeply than the test above goes."""
    known = {name for cls in dataclasses_of(AnyTrainConfig) for name in needs_of(cls)}
    assert known == set(OTHERS) == {name for _, _, name, _ in options_with_needs()}


def dataclasses_of(kind: Any) -> Iterator[type]:
    """The dataclasses that a type contains."""
    if is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for inner in get_type_hints(kind).values():
            yield from dataclasses_of(inner)
    for argument in get_args(kind):
        yield from dataclasses_of(argument)


@dataclass(frozen=True)
class Oven:
    NEEDS: ClassVar[Needs] = {
        "degrees": {"on": True},
        "fan": {"degrees": ON, "program": "baking"},
        "light": {"on": True},
    }

    on: bool = False
    degrees: float = 180.0
    fan: bool = True
    light: int | None = None
    program: str = "baking"


@pytest.mark.parametrize(
    ("oven", "complaint"),
    [
        (
            Oven(degrees=99.5),
            "--oven.degrees 99.5 has no effect without --oven.on: set that too, or set this to 180",
        ),
        (
            Oven(light=3),
            "--oven.light 3 has no effect without --oven.on: set that too, or set this to None, its default",
        ),
        (Oven(fan=False), "--oven.no-fan has no effect without --oven.on: set that too, or use --oven.fan"),
        (Oven(True, 0.0, False), "--oven.no-fan has no effect with --oven.degrees 0: change that, or use --oven.fan"),
        (Oven(True, fan=False, program="grill"), "--oven.no-fan has no effect with --oven.program grill: change that"),
    ],
)
def test_what_has_no_effect_is_refused(oven: Oven, complaint: str) -> None:
    with typed_as(), pytest.raises(ConfigError, match=f"^{complaint}"):
        check_values(oven, "oven")


def test_what_has_an_effect_is_kept() -> None:
    for oven in (Oven(), Oven(True, 99.5, False, 3)):
        check_values(oven)
        assert from_plain(Oven, to_plain(oven), "file") == oven
    assert from_plain(Oven, {"light": 3, "on": True}, "file") == Oven(True, light=3)
    assert from_plain(Oven, {"light": 3}, "file") == Oven()


@dataclass(frozen=True)
class Toaster(Oven):
    NEEDS: ClassVar[Needs] = {"slices": {"on": True}, "light": {"program": "baking"}}

    slices: int = 2


def test_needs_are_inherited() -> None:
    assert needs_of(Toaster)["light"] == {"program": "baking", "on": True}
    assert needs_of(Toaster)["degrees"] == {"on": True}
    with pytest.raises(ConfigError, match=r"^oven\.degrees 99\.5 has no effect without oven\.on"):
        check_values(Toaster(degrees=99.5), "oven")


@dataclass(frozen=True)
class Kitchen:
    oven: Oven


def test_what_a_preset_has_does_not_count_as_given() -> None:
    preset = Kitchen(Oven(True, 99.5, light=3))
    with beginning_with(preset):
        check_values(Oven(False, 99.5, light=3), "oven")
        with pytest.raises(ConfigError, match=r"^oven\.light 4 has no effect without oven\.on"):
            check_values(Oven(False, 99.5, light=4), "oven")
        with pytest.raises(ConfigError, match=r"^stove\.light 3 has no effect without stove\.on"):
            check_values(Oven(False, light=3), "stove")
    with pytest.raises(ConfigError, match=r"^oven\.degrees 99\.5 has no effect"):
        check_values(Oven(False, 99.5, light=3), "oven")
