"""One job of `hdgan reproduce` in a process of its own: trains the scorer or the perceptual network, or one run.

`python -m hdgan.reproduce.job OUT NAME …` is what hdgan.reproduce.run starts; it may be repeated at any time and goes
on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console

import hdgan
from hdgan.checkpoints import find_checkpoint, list_steps
from hdgan.data.colors import to_image
from hdgan.devices import choose_device
from hdgan.errors import HdganError
from hdgan.evaluation import evaluate, train_scorer
from hdgan.families.saving import load_model
from hdgan.files import save_png
from hdgan.metrics import RunScores
from hdgan.models.segmenter import load_segmenter
from hdgan.reproduce.folder import NETWORKS, SCORER, Folder
from hdgan.reproduce.record import Machine, cores, load_record, recorded
from hdgan.reproduce.results import REAL, Result, load_results, save_results
from hdgan.reproduce.runs import config_digest, is_trained, perceptual_digest, require_same, wanted_config
from hdgan.reproduce.sheet import shown
from hdgan.reproduce.workers import STOPPED, watch_parent
from hdgan.scenes import SPEC
from hdgan.training import TrainConfig, train


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
    machine = _machine(device, threads, jobs)
    record = folder.record(name, seed)
    if name in NETWORKS:
        if not folder.network(name).exists():
            with recorded(record, machine):
                _train_network(folder, name, device)
        return True
    if load_results(folder.result(name, seed), folder.digest(SCORER)):
        return True
    require_same(folder, name, seed)
    config = wanted_config(folder, name, seed, device=device, threads=threads)
    trained = is_trained(folder, name, seed)
    # To score a finished run anew is none of its time.
    with nullcontext() if trained else recorded(record, machine, perceptual_digest(folder, config)):
        if not trained and not train(config, resume=bool(list_steps(config.out))).finished:
            return False
        oracle, scores = evaluate([config.out], scorer=folder.network(SCORER), device=device)
        _keep_pictures(config, folder.scenes(name, seed))
    result = _result(folder, config, name, scores)
    real = replace(result, row=REAL, seed=None, **_scores(oracle))
    save_results(folder.result(name, seed), [real, result])
    return True


def _train_network(folder: Folder, name: str, device: str) -> None:
    scale = folder.scale()
    train_scorer(
        scale.data,
        SPEC.n_labels,
        scale.size,
        folder.network(name),
        steps=scale.network_steps,
        seed=NETWORKS[name],
        device=device,
        console=Console(),
    )


def _keep_pictures(config: TrainConfig, folder: Path) -> None:
    """Write what the model makes of the first held-out scenes."""
    pipeline = hdgan.load(config.out, device=config.device)
    labels, instances = (shown(config.data.scenes, kind) for kind in ("label", "inst"))
    for label, ids in zip(labels, instances, strict=True):
        save_png(to_image(pipeline(label, ids, seed=0) * 2 - 1), folder / label.name)


def _result(folder: Folder, config: TrainConfig, row: str, scores: RunScores) -> Result:
    scenes, stages = config.data.scenes, config.stages.values()
    model, _ = load_model(find_checkpoint(config.out))
    record = load_record(folder.record(row, config.seed))
    machine = record.machine if record else None
    return Result(
        scale=folder.scale().name,
        row=row,
        seed=config.seed,
        width=scenes.width,
        height=scenes.height,
        train_scenes=scenes.train,
        held_out=scenes.test,
        images=sum(stage.images or 0 for stage in stages),
        steps=list_steps(config.out)[-1],
        parameters=sum(parameter.numel() for parameter in model.generator.parameters()),
        began=record.began if record else "",
        ended=record.ended if record else "",
        seconds=record.seconds if record else None,
        cpu_seconds=record.cpu_seconds if record else None,
        device=machine.device if machine else "",
        cores=machine.cores if machine else None,
        threads=machine.threads if machine else None,
        jobs=machine.jobs if machine else None,
        torch=torch.__version__,
        hdgan=version("hdgan"),
        config=config_digest(config),
        perceptual=perceptual_digest(folder, config),
        scorer=folder.digest(SCORER),
        scorer_features=sum(load_segmenter(folder.network(SCORER)).feature_channels),
        **_scores(scores),
    )


def _scores(scores: RunScores) -> dict[str, Any]:
    """The fields of a result that a row of the evaluation gives."""
    classes = {f"iou_{SPEC.classes[score.label]}": score.iou for score in scores.classes}
    notes = "; ".join(f"{name}: {reason}" for name, reason in scores.notes.items())
    return {"notes": notes, "metrics": {**scores.metrics, **classes}}


def _machine(device: str, threads: int, jobs: int) -> Machine:
    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "CPU"
    return Machine(name, cores(), threads, jobs)


if __name__ == "__main__":
    sys.exit(main())
