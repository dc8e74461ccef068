"""Two processes on one machine do what one does with the whole batch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from hdgan.checkpoints import find_checkpoint, list_steps
from hdgan.data.sampler import StreamSampler
from hdgan.errors import ConfigError
from hdgan.families import Pix2PixHDLoss
from hdgan.seeding import derive_seed, seed_everything
from hdgan.sharding.world import World
from hdgan.training import OptimConfig, TrainConfig, setup, train
from hdgan.training.logs import read_metrics
from tests.sharding.several import environments

Start = Callable[..., subprocess.Popen[str]]


def test_seeds_are_repeatable_and_apart() -> None:
    assert len({derive_seed(*keys) for keys in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}) == 4
    seed_everything(3, 0, 7)
    first = torch.rand(2)
    seed_everything(3, 0, 7)
    assert torch.equal(torch.rand(2), first)


def changed(code: str = "") -> Start:
    """What starts `hdgan` with many small buckets of gradients, after some code has run.

    Then most gradients are on their way while others are still to come.
    """
    program = f"""
import os, sys
from hdgan.commands.main import main
from hdgan.training import gradient_average
gradient_average.BUCKET_ELEMENTS = 50
{code}
sys.exit(main(sys.argv[1:]))
"""

    def popen(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return popen


def two_processes(
    start: Start, arguments: list[str], others: list[str] | None = None
) -> tuple[list[subprocess.Popen[str]], list[str]]:
    """Train in two processes, perhaps by different arguments, until both end; returns them and what each said."""
    everyone = zip((arguments, others or arguments), environments(2), strict=True)
    processes = [start("train", *own, **environment) for own, environment in everyone]
    return processes, [process.communicate(timeout=100)[0] for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("micro_batch", "penalty"), [(None, False), (1, False), (1, True)], ids=["whole", "divided", "penalty"]
)
def test_two_processes_equal_one_with_the_whole_batch(
    make_config: Callable[..., TrainConfig],
    to_arguments: Callable[[TrainConfig], list[str]],
    start: Start,
    tmp_path: Path,
    micro_batch: int | None,
    penalty: bool,
) -> None:
    """With one bucket of gradients or, where there are micro batches as well, with many; with R1 and spectral norm."""
    # Two steps a stage: Adam's first step is the gradient's sign, which rounding may turn where a gradient is tiny.
    config = make_config(tmp_path / "one", images=8, batch_size=4, optim=OptimConfig(clip=1.0, ema_decay=0.5))
    if penalty:
        model: Any = config.model
        generator, discriminator = (replace(p, spectral_norm=True) for p in (model.generator, model.discriminator))
        model = replace(model, generator=generator, discriminator=discriminator)
        config = replace(config, model=model, loss=Pix2PixHDLoss(vgg=0.0, gan="hinge", r1=1.0, r1_every=2))
    train(config, console=Console(quiet=True))
    stages = {name: replace(stage, micro_batch=micro_batch) for name, stage in config.stages.items()}
    both = replace(config, out=tmp_path / "two", stages=stages)
    processes, outputs = two_processes(start if micro_batch is None else changed(), to_arguments(both))
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "finished" in outputs[0]
    assert "step" not in outputs[1]
    expected, found = (load_file(find_checkpoint(out)) for out in (config.out, both.out))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for ours, theirs in zip(read_metrics(both.out), read_metrics(config.out), strict=True):
        for name, value in theirs.items():
            if isinstance(value, float) and name != "images_per_second":
                assert ours[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_picture_that_one_process_cannot_read_loses_no_step(
    make_config: Callable[..., TrainConfig],
    make_data: Callable[..., Path],
    to_arguments: Callable[[TrainConfig], list[str]],
    start: Start,
    tmp_path: Path,
    rank: int,
) -> None:
    config = make_config(tmp_path / "run")
    config = replace(config, data=replace(config.data, root=make_data()))
    order = StreamSampler(6, stop=6, seed=derive_seed(config.seed, 0), rank=rank, world=2)
    (_, index) = list(order)[1][0]  # of the second step
    picture = tmp_path / f"data/train_img/s{index}_img.png"
    picture.write_bytes(picture.read_bytes()[:-60])
    processes, outputs = two_processes(start, to_arguments(config))
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert f"saved after step 1: hdgan-train --resume {config.out}" in " ".join(outputs[0].split())
    assert re.search(rf"hdgan: error: .*{picture.name}", outputs[rank])
    assert "hdgan: error: another process cannot take this step; its message says why" in outputs[1 - rank]
    assert list_steps(config.out) == [1]


FULL_MEMORY = """
import torch
from hdgan.training import trainer
plain, calls = trainer.accumulate_gradients, 0
def accumulate(objectives, g_parameters, d_parameters, rounds):
    global calls
    calls += 1
    if calls == 2 and os.environ["RANK"] == "{rank}":
        (objectives.discriminator / rounds).backward(inputs=d_parameters, retain_graph=True)
        raise torch.OutOfMemoryError("CUDA out of memory")
    plain(objectives, g_parameters, d_parameters, rounds)
trainer.accumulate_gradients = accumulate
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_one_process_lacks_in_the_middle_of_a_step_loses_no_step(
    make_config: Callable[..., TrainConfig], to_arguments: Callable[[TrainConfig], list[str]], tmp_path: Path, rank: int
) -> None:
    """The other process does not wait forever for the gradients that never come."""
    config = make_config(tmp_path / "run")
    processes, outputs = two_processes(changed(FULL_MEMORY.format(rank=rank)), to_arguments(config))
    outputs = [" ".join(output.split()) for output in outputs]
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert f"saved after step 1: hdgan-train --resume {config.out}" in outputs[0]
    assert "stage global, with 1 image per batch and process, does not fit into the memory of cpu" in outputs[rank]
    assert "another process cannot take this step; its message says why" in outputs[1 - rank]
    assert list_steps(config.out) == [1]
    assert [record["step"] for record in read_metrics(config.out)] == [1]


STOPPED = """
import signal
from hdgan.training import trainer
plain = trainer.seed_everything
def seed(*keys):
    if keys[2] + 1 == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGINT)
    plain(*keys)
trainer.seed_everything = seed
"""


@pytest.mark.slow
def test_a_request_that_one_process_gets_stops_all_after_the_same_step(
    make_config: Callable[..., TrainConfig], to_arguments: Callable[[TrainConfig], list[str]], tmp_path: Path
) -> None:
    config = make_config(tmp_path / "run")
    processes, outputs = two_processes(changed(STOPPED), to_arguments(config))
    assert [process.returncode for process in processes] == [130, 130], outputs
    assert list_steps(config.out) == [2]
    assert [record["step"] for record in read_metrics(config.out)] == [1, 2]


WITHOUT_REPORT = """
from hdgan.training import loop, saving
loop.write_report = saving.write_report = lambda run: run / "report.html"  # which takes longer than the steps
"""
NOT_FINITE = {
    "losses of the second process": """
from hdgan.training import trainer
plain = trainer.forward_backward
def spoilt(config, state, *arguments):
    bad = state.step + 1 == 2 and not state.health.rollbacks and os.environ["RANK"] == "1"
    return plain(config, state, *arguments) * (float("nan") if bad else 1)
trainer.forward_backward = spoilt
""",
    "weights that the first process saves": """
from hdgan.training.saving import Saver
plain = Saver._require_finite_weights
def spoilt(self):
    if self.state.step == 2 and not self.state.health.rollbacks:
        self.state.d_parameters[0].data.fill_(float("nan"))
    plain(self)
Saver._require_finite_weights = spoilt
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", NOT_FINITE.values(), ids=NOT_FINITE.keys())
def test_processes_go_back_together(
    make_config: Callable[..., TrainConfig], to_arguments: Callable[[TrainConfig], list[str]], tmp_path: Path, code: str
) -> None:
    """From the second stage, of one step like all of them, to the end of the first."""
    config = make_config(tmp_path / "run", images=2, health="rollback")
    processes, outputs = two_processes(changed(WITHOUT_REPORT + code), to_arguments(config))
    assert [process.returncode for process in processes] == [0, 0], outputs
    records = read_metrics(config.out)
    [event] = [record for record in records if "event" in record]
    assert (event["event"], event["step"], event["rollbacks"]) == ("rollback", 1, 1)
    assert [record["step"] for record in records if "lr" in record] == [1, 2, 3]
    assert "back to step 1" in " ".join(outputs[0].split())


def test_what_several_processes_cannot_do_is_refused(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path)
    pooled = replace(config, optim=replace(config.optim, pool_size=2))
    with pytest.raises(ConfigError, match=r"optim\.pool_size 2 works only in one process"):
        setup.check_processes(pooled, World(0, 2, torch.device("cpu")))
    setup.check_processes(pooled, World(0, 1, torch.device("cpu")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (["--seed", "0"], ["--seed", "1"], "--seed is 0 in process 0, but 1 in process 1"),
        (["--data.root", "{}"], ["--data.root", "{}-other"], "the training image s0 is label of"),
        (
            ["--model.generator.ngf", "4"],
            ["--model.generator.ngf", "6"],
            "--model.generator.ngf is 4 in process 0, but 6",
        ),
        ([], ["--stages.joint.images", "8"], "--stages.joint.images is 6 in process 0, but 8 in process 1"),
    ],
)
def test_processes_that_differ_end_before_they_train(
    make_config: Callable[..., TrainConfig],
    make_data: Callable[..., Path],
    to_arguments: Callable[[TrainConfig], list[str]],
    start: Start,
    tmp_path: Path,
    ours: list[str],
    theirs: list[str],
    message: str,
) -> None:
    data, other = make_data(), make_data("data-other")
    Image.new("L", (32, 16)).save(other / "train_label/s0_label.png")
    config = make_config(tmp_path / "run")
    arguments = to_arguments(replace(config, data=replace(config.data, root=data)))
    both = [[*arguments, *(part.format(data) for part in own)] for own in (ours, theirs)]
    processes, outputs = two_processes(start, *both)
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert "".join(outputs).count(f"the processes of the run differ: {message}") == 1, outputs
    assert not config.out.exists()


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(
    make_config: Callable[..., TrainConfig],
    to_arguments: Callable[[TrainConfig], list[str]],
    start: Start,
    tmp_path: Path,
) -> None:
    arguments = to_arguments(make_config(tmp_path / "run"))
    processes, outputs = two_processes(start, arguments, [*arguments, "--data.root", str(tmp_path / "gone")])
    assert [process.returncode for process in processes] == [2, 2], outputs
    message = f"hdgan: error: (process 1: )?.*{re.escape(str(tmp_path / 'gone'))} is not a folder"
    assert len(re.findall(message, "".join(outputs))) == 1, outputs
