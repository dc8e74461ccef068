"""report.html: a run at a glance, in one file that needs neither network nor other files.

A report shows what there is: it can be written before the first sample, from a killed run, or from a copied folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from hdgan.checkpoints import read_best
from hdgan.config.serialization import to_plain
from hdgan.data import read_photo
from hdgan.data.colors import data_url
from hdgan.errors import CheckpointError, DataError
from hdgan.files import atomic_file
from hdgan.reporting.charts import SIZES_DIFFER, VALIDATION_TITLES, Span, draw_charts, spread
from hdgan.training.config import StageConfig, TrainConfig
from hdgan.training.logs import METRICS_FILE, read_metrics
from hdgan.training.run_folder import RunEnvironment, load_config, load_environment
from hdgan.training.schedule import Stage, plan
from hdgan.training.validation import is_better, record_name

REPORT_FILE = "report.html"
MOST_STEPS = 6
"""Pictures that show how an example developed, before its last."""
MOST_PIXELS = 640
"""Width and height of an embedded picture."""
LOSSLESS_PIXELS = 320
"""Up to this width photos stay PNG."""

Record = dict[str, Any]
T = TypeVar("T")

_INPUTS = ("label", "input", "instances", "real")
_MAPS = ("label", "instances")
_LOSSES = {
    "g_gan": "G GAN",
    "g_feature_matching": "G feature matching",
    "g_vgg": "G VGG",
    "g_l1": "G L1",
    "g_perceptual": "G perceptual",
    "d_real": "D real",
    "d_fake": "D generated",
}


def write_report(run: Path) -> Path:
    """Write RUN/report.html.

    Raises:
        CheckpointError: the folder is no run, or a line of metrics.jsonl is damaged.
        HdganError: the file cannot be written; the report before it is untouched.
    """
    if not run.is_dir():
        raise CheckpointError(f"{run} is no folder: give the folder of a training run")
    config, problem = _tried(lambda: load_config(run))
    if config is None and not (run / METRICS_FILE).is_file():
        raise CheckpointError(f"{run} is no training run: {problem}")
    templates = Environment(
        loader=PackageLoader("hdgan.training", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template(REPORT_FILE).render(_content(run, config, [problem] if problem else []))
    with atomic_file(run / REPORT_FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return run / REPORT_FILE


def _tried(read: Callable[[], T]) -> tuple[T | None, str]:
    """What a part of the run says, or why it cannot be read."""
    try:
        return read(), ""
    except CheckpointError as error:
        return None, str(error)


def _content(run: Path, config: TrainConfig | None, problems: list[str]) -> dict[str, Any]:
    """All that the template shows; what cannot be read is named instead."""
    environment, problem = _tried(lambda: load_environment(run))
    best, other = _tried(lambda: read_best(run))
    metric = config.log.best if config else "l1"
    records = read_metrics(run)
    schedule = _schedule(config, environment)
    summaries = _summarise(config, schedule, records)
    losses: Record = next((record for record in reversed(records) if "lr" in record), {})
    step, total = (records[-1]["step"] if records else 0), (schedule[-1].last_step if schedule else None)
    spans = [Span(stage.name, stage.first, stage.last) for stage in summaries if stage.last > stage.first]
    note = SIZES_DIFFER if _sizes_differ(config) else ""
    return {
        "name": run.resolve().name,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "problems": [*problems, *filter(None, (problem, other))],
        "step": step,
        "total": total,
        "finished": step == total,
        "best": best,
        "best_title": VALIDATION_TITLES[metric],
        "best_name": record_name(metric),
        "note": note,
        "losses": {title: losses[name] for name, title in _LOSSES.items() if name in losses},
        "stages": summaries,
        "pictures": sum(summary.pictures for summary in summaries),
        "duration": _duration(sum(summary.seconds for summary in summaries)),
        "galleries": _galleries(run, [summary.name for summary in summaries]),
        "charts": draw_charts(records, spans, note),
        "options": _changed_options(config) if config else {},
        "config": json.dumps(to_plain(config), indent=2, ensure_ascii=False) if config else "",
        "environment": {
            name: value for name, value in to_plain(environment or RunEnvironment()).items() if value is not None
        },
    }


def _sizes_differ(config: TrainConfig | None) -> bool:
    """Whether stages train on pictures of different sizes, so that their values cannot be compared."""
    return config is not None and len({stage.size.whole for stage in config.stages.values()}) > 1


def _schedule(config: TrainConfig | None, environment: RunEnvironment | None) -> list[Stage]:
    """The stages of the run; empty where their length depends on a dataset whose size the folder does not tell."""
    if config is None or not config.stages:
        return []
    pictures = config.data.scenes.train if config.data.uses_scenes else environment and environment.training_pictures
    if pictures is None and any(stage.images is None for stage in config.stages.values()):
        return []
    return plan(config, pictures or 0)


@dataclass(frozen=True)
class Summary:
    """What a stage did so far, as its metrics tell."""

    name: str
    trains: str
    first: int
    """Steps of the run before this stage."""
    last: int
    """Latest step that has metrics."""
    planned: int | None
    pictures: int
    speed: float
    """Median of pictures a second; 0 where unknown."""
    best: tuple[int, float] | None
    """Step of the best checkpoint, and what it is best by."""

    @property
    def seconds(self) -> float:
        """Time of the training steps, without samples and checkpoints."""
        return self.pictures / self.speed if self.speed else 0.0

    @property
    def duration(self) -> str:
        return _duration(self.seconds)


def _summarise(config: TrainConfig | None, schedule: Sequence[Stage], records: Sequence[Record]) -> list[Summary]:
    """One summary for each stage that is planned or has metrics, in order."""
    configs, metric = (config.stages, config.log.best) if config else ({}, "l1")
    planned = {stage.name: stage for stage in schedule}
    of_stage: dict[str, list[Record]] = {name: [] for name in configs}
    for record in records:
        of_stage.setdefault(record["stage"], []).append(record)
    summaries: list[Summary] = []
    last = 0
    for name, own in of_stage.items():
        first = planned[name].first_step if name in planned else last
        last = own[-1]["step"] if own else first
        stage = configs.get(name)
        speeds = [record["images_per_second"] for record in own if record.get("images_per_second")]
        summaries.append(
            Summary(
                name,
                _trained_networks(stage, config) if stage and config else "",
                first,
                last,
                planned[name].steps if name in planned else None,
                (last - first) * (stage.batch_size if stage else 1),
                median(speeds) if speeds else 0.0,
                _best(metric, own),
            )
        )
    return summaries


def _best(metric: str, records: Sequence[Record]) -> tuple[int, float] | None:
    """Step and value of the record that is best by a metric; of equals the first."""
    name, best = record_name(metric), None
    for record in records:
        if name in record and (best is None or is_better(metric, record[name], best[1])):
            best = (record["step"], record[name])
    return best


def _trained_networks(stage: StageConfig, config: TrainConfig) -> str:
    model = config.model.grown(stage.n_enhancers, stage.n_scales)
    return ", ".join(model.trained(enhancer_only=stage.generator == "enhancer", encoder=stage.encoder))


def _duration(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds else ""


@dataclass(frozen=True)
class Picture:
    """An embedded picture; width and height are those of the file, `reduced` those it is shown at if smaller."""

    title: str
    source: str
    width: int
    height: int
    is_map: bool
    reduced: tuple[int, int] | None


@dataclass(frozen=True)
class Gallery:
    """The samples of a stage: for each example its inputs and last result, and its results before that."""

    stage: str
    step: int
    examples: list[tuple[list[Picture], list[Picture]]]


def _galleries(run: Path, stages: Iterable[str]) -> list[Gallery]:
    """Galleries of all stages that have samples, the latest first."""
    found = sorted(path.name for path in (run / "samples").glob("*") if path.is_dir())
    galleries = []
    for stage in dict.fromkeys([*stages, *found]):
        folder = run / "samples" / stage
        steps = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit())
        if not steps:
            continue
        # The last step is the result itself, so the strip ends before it.
        shown = [steps[i] for i in spread(len(steps), MOST_STEPS + 1)[:-1]]
        examples = []
        for k in sorted(int(path.stem) for path in (folder / f"{steps[-1]:08d}").glob("*.png")):
            sources = [_picture(folder / "inputs" / f"{k}_{name}.png", name) for name in _INPUTS]
            results = [_picture(folder / f"{step:08d}" / f"{k}.png", f"step {step:,}") for step in shown]
            result = _picture(folder / f"{steps[-1]:08d}" / f"{k}.png", "generated")
            row = [picture for picture in (*sources, result) if picture]
            examples.append((row, [picture for picture in results if picture]))
        galleries.append(Gallery(stage, steps[-1], examples))
    return galleries[::-1]


def _picture(file: Path, title: str) -> Picture | None:
    """Embed a picture, None if none can be read: maps stay exact, large photos become JPEG."""
    try:
        image = read_photo(file)
    except DataError:
        return None
    width, height = image.size
    is_map = title in _MAPS
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.NEAREST if is_map else Image.Resampling.LANCZOS)
    source = data_url(image, "PNG" if is_map or width <= LOSSLESS_PIXELS else "JPEG", optimize=True, quality=88)
    reduced = image.size if image.size != (width, height) else None
    return Picture(title, source, width, height, is_map, reduced)


@dataclass(frozen=True)
class Option:
    """An option that differs from its default, as the command line spells it."""

    name: str
    value: str
    default: str


def _changed_options(config: TrainConfig) -> dict[str, list[Option]]:
    """Options that are not at the defaults of the model's family, by part of the config."""
    defaults = to_plain(TrainConfig(model=type(config.model)(), loss=config.family.loss()))
    defaults["stages"] = dict.fromkeys(config.stages, to_plain(StageConfig()))
    known = _flatten(defaults)
    changed: dict[str, list[Option]] = {}
    for path, value in _flatten(to_plain(config)).items():
        if path in known and known[path] == value:
            continue
        depth = 2 if path[0] == "stages" else 1 if len(path) > 1 else 0
        default = _shown(known[path]) if path in known else ""
        changed.setdefault(".".join(path[:depth]) or "run", []).append(
            Option(".".join(path[depth:]).replace("_", "-"), _shown(value), default)
        )
    return changed


def _flatten(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in config.items():
        flat.update(_flatten(value, (*path, key)) if isinstance(value, Mapping) else {(*path, key): value})
    return flat


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
