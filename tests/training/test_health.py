"""What the watch measures, and what it says to the numbers of sick and healthy runs."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from hdgan.checkpoints import MODEL_FILE, TRAINING_FILE, checkpoint_path, list_steps
from hdgan.errors import CheckpointError, ConfigError
from hdgan.training import TrainConfig, load_config, train, write_report
from hdgan.training.health import LASTING, Finding, Health, gradient_norm, guessing_loss, image_statistics
from hdgan.training.logs import read_metrics
from hdgan.training.spots import spot_share

pytestmark = pytest.mark.usefixtures("plain_report")

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
WELL = {
    "g_gan": 0.6,
    "d_real": 0.5,
    "d_fake": 0.5,
    "fake_saturated": 0.01,
    "real_saturated": 0.02,
    "fake_deviation": 0.3,
    "real_deviation": 0.4,
    "grad_g": 40.0,
    "grad_d": 5.0,
}


def judged(steps: int, **values: float) -> list[tuple[int, Finding]]:
    """What is found in steps of a sick run, after 50 of a healthy one, with the number of the step."""
    health = Health()
    for _ in range(50):
        assert health.judge(WELL, 1.0, "stages.global") == []
    sick = {**WELL, **values}
    return [(k, found) for k in range(1, steps + 1) for found in health.judge(sick, 1.0, "stages.global")]


def test_images_are_measured() -> None:
    fake = torch.tensor([1.0, -1.0, 0.995, 0.0]).view(1, 1, 2, 2)
    photo = torch.tensor([0.5, -0.5, 0.5, -0.5]).view(1, 1, 2, 2)
    saturated, real_saturated, deviation, real_deviation = image_statistics(fake, photo).tolist()
    assert (saturated, real_saturated) == (0.75, 0.0)
    assert deviation == pytest.approx(float(fake.std(correction=0)))
    assert real_deviation == 0.5
    several = torch.stack([fake, torch.zeros_like(fake)], dim=1)  # images of one condition
    assert image_statistics(several, photo)[2] == pytest.approx(deviation / 2)


def test_a_gradient_is_that_of_all_parameters() -> None:
    one, two, without = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(gradient_norm([one, two, without])) == 5.0
    assert float(gradient_norm([without])) == 0.0


@pytest.mark.parametrize(
    ("symptom", "values", "words"),
    [
        ("spike", {"grad_g": 4000.0}, ["gradient of G is 100 times its usual norm of 40", "one bad batch", "clip 40"]),
        ("exploding", {"grad_g": 4000.0}, ["more than 10 times as large", "rate is probably too high"]),
        ("saturated", {"fake_saturated": 0.97}, ["97% of the values of G's images", "2% of the photos'", "global.lr,"]),
        ("diverged", {"d_real": 475.0}, ["D's loss is 476, where one that only guesses has 1", "too high"]),
        ("constant", {"fake_deviation": 0.002}, ["almost of one colour", "0.002", "photos by 0.4"]),
        (
            "d_strong",
            {"d_real": 0.001, "d_fake": 0.002, "g_gan": 1.9},
            ["certain of every image for 150 steps", "0.003", "loss.r1"],
        ),
    ],
)
def test_a_symptom_counts_once_it_has_lasted(symptom: str, values: dict[str, float], words: list[str]) -> None:
    found = [
        (step, f"{f.problem}; {f.remedy}") for step, f in judged(5 * LASTING[symptom], **values) if f.symptom == symptom
    ]
    first = LASTING[symptom]
    assert [step for step, _ in found] == [first, 2 * first, 4 * first]  # not in every step
    assert [word for word in words if word not in found[0][1]] == []


def test_a_symptom_that_passes_does_not_count() -> None:
    health = Health()
    sick = {**WELL, "fake_saturated": 0.9}
    for values in [sick] * 49 + [WELL] + [sick] * 49:
        assert health.judge(values, 1.0, "stages.global") == []
    assert not health.is_good
    health.judge(WELL, 1.0, "stages.global")
    assert health.is_good


def test_large_gradients_at_the_start_are_usual() -> None:
    """They fall by a factor of ten and vary by three, as those of the demo do."""
    health, generator = Health(), torch.Generator().manual_seed(0)
    for step in range(400):
        norm = 30 + 270 * math.exp(-step / 20)
        noise = float(torch.randn((), generator=generator).mul(0.35).exp())
        assert health.judge({**WELL, "grad_g": norm * noise}, 1.0, "stages.global") == []


def test_a_family_without_a_discriminator_is_judged_by_g(family_configs: dict[str, MakeConfig], tmp_path: Path) -> None:
    config = family_configs["crn"](tmp_path)
    assert guessing_loss(config, None) == 0
    values = {name: WELL[name] for name in WELL if name not in ("g_gan", "d_real", "d_fake", "grad_d")}
    health = Health()
    found = [health.judge({**values, "fake_saturated": 1.0}, 0.0, "stages.global") for _ in range(50)]
    assert [f.symptom for f in found[-1]] == ["saturated"]


def test_rates_fall_with_every_rollback() -> None:
    saved = Health(good=3, judged=40, lasting={"d_strong": 5}, usual=2.0)
    failed = Health(rollbacks=1, rate_g=0.5, rate_d=0.25, good=3, judged=90, lasting={"d_strong": 150})
    assert saved.after_rollback(failed, "saturated") == Health(2, 0.25, 0.125, 3, 40, {}, 2.0)
    assert saved.after_rollback(failed, "d_strong") == Health(2, 0.5, 0.125, 3, 40, {}, 2.0)
    assert failed.for_next_stage() == Health(1, 0.5, 0.25, 3)


@pytest.mark.parametrize(("gan", "loss"), [("lsgan", 0.5), ("vanilla", 1.386), ("hinge", 2.0)])
def test_the_loss_of_guessing(make_config: MakeConfig, tmp_path: Path, gan: str, loss: float) -> None:
    config = make_config(tmp_path)
    config = replace(config, loss=replace(config.loss, gan=gan))
    scales = nn.Module()
    scales.scales = nn.ModuleList([nn.Identity()] * 3)
    assert guessing_loss(config, scales) == pytest.approx(3 * loss, rel=1e-3)


def test_the_watch_changes_no_bit(make_family_config: MakeConfig, tmp_path: Path) -> None:
    """Weights, averages and losses are those of a run without it, whose checkpoints have nothing new in them."""
    weights, states, losses = {}, {}, {}
    for health in ("off", "warn", "rollback"):
        config = make_family_config(tmp_path / health, health=health)
        train(config, console=QUIET)
        folder = checkpoint_path(config.out, list_steps(config.out)[-1])
        weights[health] = load_file(folder / MODEL_FILE)
        states[health] = torch.load(folder / TRAINING_FILE, weights_only=True)
        losses[health] = [r for r in read_metrics(config.out) if "lr" in r]
    for watched in ("warn", "rollback"):
        assert [k for k, v in weights["off"].items() if not torch.equal(v, weights[watched][k])] == []
        for mine, theirs in zip(losses["off"], losses[watched], strict=True):
            assert {k: v for k, v in theirs.items() if k in mine and k != "images_per_second"} == {
                k: v for k, v in mine.items() if k != "images_per_second"
            }
            assert theirs.keys() - mine.keys() >= {"grad_g", "fake_saturated", "real_deviation"}
    assert "health" not in states["off"]
    assert "stale" not in states["off"]


def test_a_warning_is_printed_and_recorded(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LASTING, "saturated", 5)
    config = make_config(tmp_path / "run", health="warn", images=30)
    stages = {"global": replace(config.stages["global"], lr=1.0, decay=0.0)}
    console = Console(record=True, file=io.StringIO(), width=400)
    config = replace(config, stages=stages)
    train(config, console=console)
    events = [record for record in read_metrics(config.out) if "event" in record]
    assert events
    text = next(event["text"] for event in events if "rate is probably too high" in event["text"])
    assert text.startswith("step ")
    assert f"warning: {text}" in console.export_text()
    monkeypatch.undo()
    page = write_report(config.out).read_text(encoding="utf-8")
    assert "<h2>Events</h2>" in page
    assert "rate is probably too high" in page
    assert "Saturated values" in page


def test_a_memory_that_is_damaged_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", health="warn")
    train(config, console=QUIET)
    file = checkpoint_path(config.out, 9) / TRAINING_FILE
    state = torch.load(file, weights_only=True)
    state["health"]["rate_g"] = 7.0
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"training\.pt: health\.rate_g is 7\.0"):
        train(load_config(config.out), resume=True, console=QUIET)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"health": "on"}, r"^health is 'on'"),
        ({"health": "rollback", "health_rollbacks": 0}, r"^health_rollbacks is 0"),
        (
            {"health": "warn", "health_rollbacks": 2},
            r"^health_rollbacks 2 has no effect with health warn: .* or set this to 3, its default",
        ),
    ],
)
def test_values_that_no_run_can_have(
    make_config: MakeConfig, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make_config(tmp_path, **options)


def test_spots_are_in_most_planes_of_a_layer() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Conv2d(4, 4, 1, groups=4, bias=False), nn.Conv2d(4, 3, 1)

    layers = Layers()
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))

    def share(x: torch.Tensor) -> float:
        with torch.no_grad():
            return spot_share(layers, lambda: layers.head(layers.inner(x)))

    assert share(x) < 0.02
    alone = x.clone()
    alone[0, 0, 3, 4] = 1000
    assert 0.24 < share(alone) < 0.27  # one plane of four
    everywhere = x.clone()
    everywhere[0, :, 3, 4] = 1000
    assert share(everywhere) > 0.98
    assert share(x[:, :, :8, :8]) == 0  # too small to say
    assert not layers.inner._forward_hooks
