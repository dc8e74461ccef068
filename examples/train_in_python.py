"""Train pix2pixHD from Python, follow its losses, and generate a picture with the trained model.

    python examples/train_in_python.py                                  # built-in street scenes, a few minutes
    python examples/train_in_python.py --data FOLDER --n-labels 35      # your label maps, instance maps and photos

The layouts that FOLDER can have are in README.md under "Your data". Ctrl-C saves the run; the same command with
`--resume` continues it. The run and `generated.png` are written into the folder `--out`.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import tyro

import hdgan
from hdgan.data import DataConfig, SizeConfig, find_pairs, validation_phase
from hdgan.errors import HdganError
from hdgan.scenes import SPEC, ensure_scenes
from hdgan.training import PRESETS, TrainConfig, train


def recipe(out: Path, data: Path | None, n_labels: int, instances: bool, width: int, images: int) -> TrainConfig:
    """The preset `demo`: coarse to fine in three stages. Configs are frozen, so a change makes a new one."""
    preset = PRESETS["demo"]()
    scenes = replace(preset.data.scenes, width=width, height=width // 2)
    if images < preset.data.scenes.train:
        scenes = replace(scenes, train=images, test=2)  # no more than are looked at
    sizes = {"global": width // 2, "enhancer": width, "joint": width}  # the height keeps each photo's shape
    stages = {
        name: replace(stage, size=SizeConfig(width=sizes[name]), images=images) for name, stage in preset.stages.items()
    }
    model = replace(preset.model, n_labels=n_labels, instances=instances)
    return replace(preset, out=out, data=DataConfig(root=data, scenes=scenes), model=model, stages=stages)


class Recorder:
    """Keeps the losses that `train` reports, and prints what it measures on the validation images."""

    def __init__(self) -> None:
        self.losses: dict[str, dict[str, list[float]]] = {}  # by stage and name

    def __call__(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        if "val_l1" in values:
            print(f"step {step}, {stage}: L1 of the validation images {values['val_l1']:.3f}")
        for name, value in values.items():
            if name.startswith(("g_", "d_")):
                self.losses.setdefault(stage, {}).setdefault(name, []).append(value)

    def summary(self) -> Iterator[str]:
        """The mean of each loss over the first and over the last fifth of each stage."""
        for stage, losses in self.losses.items():
            for name, values in losses.items():
                n = -(-len(values) // 5)
                yield f"{stage:10} {name:20} {fmean(values[:n]):8.3f} -> {fmean(values[-n:]):8.3f}"


def main(
    out: Path = Path("runs/python"),
    data: Path | None = None,
    n_labels: int = SPEC.n_labels,
    instances: bool = True,
    width: int = 256,
    images: int = 500,
    resume: bool = False,
) -> None:
    """Train, and generate a picture of the first validation sample.

    Args:
        out: Folder of the run.
        data: Folder of your data; without it, street scenes are rendered.
        n_labels: Classes of your label maps.
        instances: Whether your data has instance maps.
        width: Width in pixels to which images are scaled; the first stage trains at half of it.
        images: Images of each of the three stages.
        resume: Continue the run in `out`.
    """
    config, recorder = recipe(out, data, n_labels, instances, width, images), Recorder()
    result = train(config, resume=resume, on_metrics=recorder)
    print(*recorder.summary(), sep="\n")
    if not result.finished:
        return

    found = replace(config.data, root=data or ensure_scenes(config.data.scenes))
    sample = find_pairs(found, validation_phase(found)).pairs[0]
    assert sample.label is not None
    model = hdgan.load(out)
    picture = model(sample.label, sample.ids, photo=sample.photo)  # the photo gives each object its style
    model.save_image(picture, out / "generated.png")
    print(f"picture of {sample.stem}: {out / 'generated.png'}")


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except HdganError as error:
        sys.exit(f"error: {error}")
