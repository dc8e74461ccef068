"""What needs a GPU: `pytest -m gpu`. Without one these tests are deselected, and pytest's last line counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import hdgan
from hdgan.config.serialization import to_plain
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.seeding import seeded
from hdgan.training import OptimConfig, TrainConfig, train
from hdgan.training.logs import read_metrics
from hdgan.training.run_folder import load_environment
from tests.training.test_trainer import make_inputs, make_state, make_trainer, moved, steady

pytestmark = pytest.mark.gpu

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _no_tf32() -> Iterator[None]:
    """Compare in float32 itself."""
    settings = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [part.allow_tf32 for part in settings]
    for part in settings:
        part.allow_tf32 = False
    yield
    for part, allowed in zip(settings, before, strict=True):
        part.allow_tf32 = allowed


LOSSES = {"pix2pixhd": "g_feature_matching", "pix2pix": "g_l1", "crn": "l1_image"}
"""One that depends on G of each family."""


def losses(config: TrainConfig) -> list[float]:
    name = LOSSES[config.model.family]
    return [record[name] for record in read_metrics(config.out) if name in record]


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trains_all_stages(make_family_config: MakeConfig, tmp_path: Path, precision: str, memory_format: str) -> None:
    config = make_family_config(tmp_path / "gpu", device="cuda", precision=precision, memory_format=memory_format)
    train(config, console=Console(quiet=True))
    reference = make_family_config(tmp_path / "cpu")
    train(reference, console=Console(quiet=True))
    assert losses(config)[0] == pytest.approx(losses(reference)[0], rel=1e-3 if precision == "float32" else 0.1)
    assert len(losses(config)) == len(losses(reference))


@pytest.mark.parametrize(
    "options", [{"cuda_graphs": True}, {"cuda_graphs": "auto"}, {"compile": "default"}, {"recompute": False}]
)
def test_other_ways_to_take_a_step_train_alike(
    make_config: MakeConfig, tmp_path: Path, options: dict[str, Any]
) -> None:
    """With readers, prefetching and a change of stages."""
    config = make_config(tmp_path / "plain", device="cuda", cuda_graphs=False)
    config = replace(config, model=replace(config.model, feature_channels=0), data=replace(config.data, workers=2))
    train(config, console=Console(quiet=True))
    other = replace(config, out=tmp_path / "other", **options)
    train(other, console=Console(quiet=True))
    assert losses(other) == pytest.approx(losses(config), rel=1e-2)


def test_a_run_chooses_graphs_and_memory_by_itself(make_family_config: MakeConfig, tmp_path: Path) -> None:
    config = make_family_config(tmp_path / "run", device="cuda", recompute="auto")
    train(config, console=Console(quiet=True))
    steps = load_environment(config.out).steps
    assert steps is not None
    assert list(steps) == list(config.stages)
    for text in steps.values():
        assert "recompute off (without it, a step needs about" in text
        assert ("CUDA graphs on (possible)" in text) == (config.model.feature_channels == 0)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("features", [0, 2])
def test_a_step_waits_for_the_gpu_nowhere(make_config: MakeConfig, tmp_path: Path, features: int, graphs: bool) -> None:
    """It may wait for the losses of the step before, but for nothing that was queued after them."""
    if graphs and features:
        pytest.skip("no graph holds features")
    device = torch.device("cuda", torch.cuda.current_device())
    config = make_config(tmp_path, device="cuda", cuda_graphs=graphs, optim=OptimConfig(clip=1.0))
    config = steady(replace(config, model=replace(config.model, feature_channels=features)))
    trainer = make_trainer(config, make_state(config, device=device))
    inputs = moved(make_inputs(2, torch.float32), device).indexed(None)
    for _ in range(3):  # libraries choose their algorithms, the graph is captured
        trainer.train_step(inputs)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        trainer.train_step(inputs)
        torch.cuda._sleep(2_000_000_000)  # about a second
        slept = torch.cuda.current_stream().record_event()
        trainer.train_step(inputs)
        still_sleeps = not slept.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert still_sleeps
    trainer.finish()
    assert slept.query()


def test_resume_continues(make_family_config: MakeConfig, tmp_path: Path) -> None:
    config = make_family_config(tmp_path / "run", device="cuda")
    train(config, console=Console(quiet=True))
    last = list(config.stages)[-1]
    longer = replace(config, stages={**config.stages, last: replace(config.stages[last], images=10)})
    train(longer, resume=True, console=Console(quiet=True))
    assert len(losses(config)) == sum(stage.images or 0 for stage in longer.stages.values()) // 2


def test_generator_equals_cpu() -> None:
    torch.manual_seed(0)
    config = Pix2PixHDConfig(n_labels=5, generator=GeneratorConfig(ngf=8, n_downsample=2, n_blocks=2, n_enhancers=1))
    model = Pix2PixHD(config).double()
    label = torch.randint(5, (2, 37, 50))
    with torch.no_grad():
        expected = model.generate(model.condition(label, label))
        model, label = model.cuda(), label.cuda()
        found = model.generate(model.condition(label, label))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)


def test_pipeline_on_gpu(run: Path, dataset: Path) -> None:
    files = (dataset / "test_label" / "s0_label.png", dataset / "test_inst" / "s0_inst.tif")
    on_cpu = hdgan.load(run, device="cpu")(*files)
    on_gpu = hdgan.load(run, device="cuda")(*files)
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=5e-3)


def test_seeded_numbers_of_the_gpu() -> None:
    device = torch.device("cuda")
    before = torch.cuda.get_rng_state(device)
    drawn = []
    for key in (1, 1, 2):
        with seeded(device, key):
            drawn.append(torch.rand(3, device=device))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.cuda.get_rng_state(device), before)


def test_environment_names_the_gpu(make_config: MakeConfig, tmp_path: Path) -> None:
    config = replace(make_config(tmp_path / "run"), device="cuda")
    train(config, console=Console(quiet=True))
    assert torch.cuda.get_device_name() in (config.out / "environment.json").read_text()
    assert to_plain(config)["device"] == "cuda"
