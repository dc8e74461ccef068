"""Command lines of earlier versions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hdgan.commands.old_options import with_todays_names
from hdgan.errors import ConfigError
from hdgan.training import PRESETS


@pytest.mark.parametrize(
    ("preset", "typed", "today"),
    [
        ("crn", ["--stages.fine.n-enhancers", "2"], ["--stages.fine.extra-modules", "2"]),
        ("crn", ["--stages.fine.n_enhancers=2"], ["--stages.fine.extra-modules", "2"]),
        ("crn", ["--stages.fine.generator", "enhancer"], ["--stages.fine.train", "finest"]),
        ("crn", ["--stages.fine.generator=all"], ["--stages.fine.train", "all"]),
        ("crn", ["--stages.fine.no-encoder", "--stages.fine.n-scales", "2", "--lr", "1"], ["--lr", "1"]),
        ("pix2pix", ["--stages.global.n-enhancers", "0", "--stages.global.generator", "all"], []),
        ("pix2pix", ["--stages.global.encoder", "--seed", "2"], ["--seed", "2"]),
        ("demo", ["--loss.scorer", "random", "--loss.vgg", "3"], ["--loss.network", "random", "--loss.vgg", "3"]),
        ("crn", ["--loss.vgg-weights=vgg.pth"], ["--loss.network-weights", "vgg.pth"]),
        ("crn", ["--loss.scorer", "None", "--seed", "2"], ["--seed", "2"]),
    ],
)
def test_old_options_become_those_of_today(preset: str, typed: Sequence[str], today: Sequence[str]) -> None:
    assert with_todays_names(typed, PRESETS[preset]()) == today


@pytest.mark.parametrize(
    ("preset", "typed"),
    [
        ("demo", ["--stages.joint.n-enhancers", "1", "--stages.joint.generator=all", "--stages.joint.no-encoder"]),
        ("crn", ["--stages.fine.n-scales", "3", "--stages.fine.extra-modules=1", "--stages.fine.size.width", "64"]),
        ("crn", ["--stages.other.n-enhancers", "1", "--n-enhancers", "1"]),
        ("pix2pix", ["--loss.scorer", "random", "--loss.l1", "50"]),
        ("pix2pix", ["--stages.global.n-enhancers", "1", "--stages.global.n-scales"]),
    ],
)
def test_everything_else_stays_as_it_was_typed(preset: str, typed: Sequence[str]) -> None:
    assert with_todays_names(typed, PRESETS[preset]()) == list(typed)


@pytest.mark.parametrize(
    ("preset", "old", "today"),
    [
        ("demo", ["--loss.scorer", "random"], ["--loss.network", "vgg19"]),
        ("demo", ["--loss.scorer=random"], ["--loss.network=vgg19"]),
        ("crn", ["--loss.vgg-weights", "old.pth"], ["--loss.network_weights", "new.pth"]),
        ("crn", ["--stages.fine.n_enhancers", "2"], ["--stages.fine.extra-modules", "1"]),
    ],
)
def test_one_option_by_two_names_is_refused(preset: str, old: list[str], today: list[str]) -> None:
    names = (part[0].split("=")[0] for part in (old, today))
    complaint = "^{} is an old name of {}: give only one of them$".format(*names).replace("network_w", "network-w")
    for typed in ([*old, *today], [*today, *old]):
        with pytest.raises(ConfigError, match=complaint):
            with_todays_names(typed, PRESETS[preset]())


def test_the_same_option_of_another_stage_is_another_one() -> None:
    typed = ["--stages.fine.n-enhancers", "2", "--stages.coarse.extra-modules", "1"]
    assert with_todays_names(typed, PRESETS["crn"]())[:2] == ["--stages.fine.extra-modules", "2"]
