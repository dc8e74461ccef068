"""One job of `hdgan reproduce` in a process of its own: trains the scorer or the perceptual network, or one run.

`python -m hdgan.reproduce.job OUT NAME …` is what hdgan.reproduce.run starts; it may be repeated at any time and goes
on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from rich.console import Console

import hdgan
from hdgan.checkpoints import find_checkpoint, list_steps
from hdgan.data.colors import to_image
from hdgan.data.scenes import CLASSES
from hdgan.devices import choose_device
from hdgan.errors import ConfigError, HdganError
from hdgan.evaluation import RunScores, evaluate, train_scorer
from hdgan.files import save_png
from hdgan.models.saving import load_model
from hdgan.reproduce.folder import NETWORKS, PERCEPTUAL, SCORER, Folder
from hdgan.reproduce.plan import run_config
from hdgan.reproduce.results import REAL, Result, save_results
from hdgan.reproduce.sheet import shown
from hdgan.reproduce.workers import STOPPED, watch_parent
from hdgan.training import TrainConfig, load_config, train
from hdgan.training.logs import read_metrics


def main(arguments: Sequence[str] | None = None) -> int:
    """Do a job; an error that a user can act on is one line, the last of the output."""
    parser = argparse.ArgumentParser(prog="hdgan.reproduce.job")
    parser.add_argument("out", type=Path)
    parser.add_argument("name", help="scorer, perceptual, or the row of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True, help="side by side, for the result")
    options = parser.parse_args(arguments)
    watch_parent()
    torch.set_num_threads(options.threads)
    folder = Folder(options.out)
    try:
        # The process of a killed `hdgan reproduce` may still be saving.
        with FileLock(folder.lock(f"{options.name}-{options.seed}")):
            finished = do(folder, options.name, options.seed, options.device, options.threads, options.jobs)
    except HdganError as error:
        print(" ".join(str(error).split()))
        return 2
    except KeyboardInterrupt:
        return STOPPED
    print(f"{time.process_time():.0f} s of CPU time")
    return 0 if finished else STOPPED


def do(folder: Folder, name: str, seed: int, device: str, threads: int, jobs: int) -> bool:
    """Bring a job to its end; False if asked to stop before.

    Args:
        folder: of all runs.
        name: of a network, or the row of a run.
        seed: of the run.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
        jobs: side by side, which the result tells.

    Raises:
        HdganError: as of training and evaluation.
    """
    if name in NETWORKS:
        _train_network(folder, name, device)
        return True
    if folder.result(name, seed).is_file():
        return True
    scale, run = folder.scale(), folder.run(name, seed)
    perceptual = folder.network(PERCEPTUAL)
    config = run_config(scale, name, seed, out=run, perceptual=perceptual, device=device, threads=threads)
    resume = bool(list_steps(run))
    if resume:
        _require_same(config)
    if not train(config, resume=resume).finished:
        return False
    oracle, scores = evaluate([run], scorer=folder.network(SCORER), device=device)
    _keep_pictures(config, folder.scenes(name, seed))
    results = [
        _result(config, scale.name, REAL, None, jobs, oracle),
        _result(config, scale.name, name, seed, jobs, scores),
    ]
    save_results(folder.result(name, seed), results)
    return True


def _train_network(folder: Folder, name: str, device: str) -> None:
    file = folder.network(name)
    if not file.exists():
        scale = folder.scale()
        train_scorer(
            scale.data,
            len(CLASSES),
            scale.size,
            file,
            steps=scale.network_steps,
            seed=NETWORKS[name],
            device=device,
            console=Console(),
        )


def _require_same(config: TrainConfig) -> None:
    """Raise ConfigError if a run that was begun is not the one that is wanted."""
    begun = load_config(config.out)
    if replace(begun, device=config.device, threads=config.threads) != config:
        raise ConfigError(
            f"{config.out} was begun by another version of hdgan, with other options: delete that folder to train the "
            "run again, or name another --out"
        )


def _keep_pictures(config: TrainConfig, folder: Path) -> None:
    """Write what the model makes of the first held-out scenes."""
    pipeline = hdgan.load(config.out, device=config.device)
    labels, instances = (shown(config.data.scenes, kind) for kind in ("label", "inst"))
    for label, ids in zip(labels, instances, strict=True):
        save_png(to_image(pipeline(label, ids, seed=0) * 2 - 1), folder / label.name)


def _result(config: TrainConfig, scale: str, row: str, seed: int | None, jobs: int, scores: RunScores) -> Result:
    scenes, stages = config.data.scenes, config.stages.values()
    device = choose_device(config.device)
    model, _ = load_model(find_checkpoint(config.out))
    classes = {f"iou_{CLASSES[score.label]}": score.iou for score in scores.classes}
    return Result(
        scale=scale,
        row=row,
        seed=seed,
        width=scenes.width,
        height=scenes.height,
        train_scenes=scenes.train,
        held_out=scenes.test,
        images=sum(stage.images or 0 for stage in stages),
        steps=list_steps(config.out)[-1],
        seconds=training_seconds(config),
        parameters=sum(parameter.numel() for parameter in model.generator.parameters()),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        jobs=jobs,
        torch=torch.__version__,
        hdgan=version("hdgan"),
        notes="; ".join(f"{name}: {reason}" for name, reason in scores.notes.items()),
        metrics={**scores.metrics, **classes},
    )


def training_seconds(config: TrainConfig) -> float:
    """What the steps of a run took, also over several sittings: by the pace in each record of its log."""
    seconds, before = 0.0, 0
    for record in read_metrics(config.out):
        if speed := record.get("images_per_second"):
            batch = config.stages[record["stage"]].batch_size
            seconds += (record["step"] - before) * batch / speed
            before = record["step"]
    return seconds


if __name__ == "__main__":
    sys.exit(main())
