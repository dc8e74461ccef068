"""report.html: a summary of a run, on a page that needs no other file.

A report shows the parts of a run that exist. It can be written before the first sample, from a killed run, or from a
copied folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from hdgan.checkpoints import read_best
from hdgan.config.serialization import flattened, to_plain
from hdgan.data import read_photo
from hdgan.data.class_file import find_classes
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError, DataError
from hdgan.families.common.train_config import StageConfig, TrainConfig
from hdgan.metrics.scores import HIGHER_IS_BETTER
from hdgan.reporting.chart_specs import LOSS_TITLES, SIZES_DIFFER, VALIDATION_NOTES, VALIDATION_TITLES
from hdgan.reporting.charts import Span, draw_charts, spread
from hdgan.reporting.images import EmbeddedImage, embed
from hdgan.reporting.page import write_page
from hdgan.scenes import SPEC
from hdgan.training.logs import METRICS_FILE, read_metrics
from hdgan.training.run_folder import RunEnvironment, load_config, load_environment
from hdgan.training.schedule import Stage, plan
from hdgan.training.validation import is_better, record_name

REPORT_FILE = "report.html"
MOST_STEPS = 6
"""Number of images that show how an example developed, excluding its latest."""
MOST_PIXELS = 640
"""Greatest width and height of an embedded image."""

Record = dict[str, Any]
T = TypeVar("T")

_INPUTS = {"label": "label map", "input": "input", "instances": "instance map", "real": "photo"}
"""Titles of what an example is made of, by the names of the files."""
_MAPS = ("label map", "instance map")


def write_report(run: Path) -> Path:
    """Write RUN/report.html.

    Raises:
        CheckpointError: the folder holds no run, or a line of metrics.jsonl is damaged.
        HdganError: the file cannot be written. An earlier report is unchanged.
    """
    if not run.is_dir():
        raise CheckpointError(f"{run} is not a folder: give the folder of a training run")
    config, problem = _tried(lambda: load_config(run))
    if config is None and not (run / METRICS_FILE).is_file():
        raise CheckpointError(f"{run} is not a training run: {problem}")
    content = _content(run, config, [problem] if problem else [])
    return write_page(f"training/{REPORT_FILE}", content, run / REPORT_FILE)


def _tried(read: Callable[[], T]) -> tuple[T | None, str]:
    """A part of the run, or the reason why it cannot be read."""
    try:
        return read(), ""
    except (CheckpointError, DataError) as error:
        return None, str(error)


def _classes(run: Path, config: TrainConfig | None) -> DatasetSpec | None:
    """The classes whose colours the samples have, where they are known."""
    found = find_classes(run)
    return SPEC if found is None and config is not None and config.data.uses_scenes else found


def _content(run: Path, config: TrainConfig | None, problems: list[str]) -> dict[str, Any]:
    """Everything that the template shows. A part that cannot be read is listed among the problems."""
    environment, problem = _tried(lambda: load_environment(run))
    best, other_problem = _tried(lambda: read_best(run))
    classes, class_problem = _tried(lambda: _classes(run, config))
    metric = config.log.best if config else "l1"
    everything = read_metrics(run)
    records = [record for record in everything if "event" not in record]
    step = everything[-1]["step"] if everything else 0
    schedule = _schedule(config, environment)
    summaries = _summarise(config, schedule, records)
    losses: Record = next((record for record in reversed(records) if "lr" in record), {})
    total = schedule[-1].last_step if schedule else None
    spans = [Span(stage.name, stage.first, stage.last) for stage in summaries if stage.last > stage.first]
    note = SIZES_DIFFER if _sizes_differ(config) else ""
    return {
        "name": run.resolve().name,
        "problems": [*problems, *filter(None, (problem, other_problem, class_problem))],
        "step": step,
        "total": total,
        "finished": step == total,
        "best": best,
        "best_title": VALIDATION_TITLES[metric],
        "best_name": record_name(metric),
        "best_note": VALIDATION_NOTES[metric],
        "best_higher": metric in HIGHER_IS_BETTER,
        "note": note,
        "losses": {title: losses[name] for name, title in LOSS_TITLES.items() if name in losses},
        "stages": summaries,
        "watched": config is not None and config.health != "off",
        "events": [(record["event"].replace("_", " "), record["text"]) for record in everything if "event" in record],
        "images": sum(summary.images for summary in summaries),
        "duration": _duration(sum(summary.seconds for summary in summaries)),
        "classes": classes,
        "photos": environment.photos if environment else None,
        "stage_samples": _stage_samples(run, [summary.name for summary in summaries]),
        "charts": draw_charts(records, spans, note),
        "options": _changed_options(config) if config else {},
        "config": json.dumps(to_plain(config), indent=2, ensure_ascii=False) if config else "",
        "environment": _facts(environment or RunEnvironment()),
    }


def _facts(environment: RunEnvironment) -> dict[str, Any]:
    """What is known of an environment, with an entry for the steps of each stage."""
    steps = {f"steps of stage {name}": text for name, text in (environment.steps or {}).items()}
    return {
        name: value for name, value in to_plain(replace(environment, steps=None)).items() if value is not None
    } | steps


def _sizes_differ(config: TrainConfig | None) -> bool:
    """Whether stages train on images of different sizes, so that their values cannot be compared."""
    return config is not None and len({stage.size.whole for stage in config.stages.values()}) > 1


def _schedule(config: TrainConfig | None, environment: RunEnvironment | None) -> list[Stage]:
    """The stages of the run. Empty if their length depends on a dataset whose size is not in the folder."""
    if config is None or not config.stages:
        return []
    images = config.data.scenes.train if config.data.uses_scenes else environment and environment.training_pictures
    if images is None and any(stage.images is None for stage in config.stages.values()):
        return []
    return plan(config, images or 0)


@dataclass(frozen=True)
class StageSummary:
    """What a stage has done so far, according to its metrics."""

    name: str
    trains: str
    first: int
    """Steps of the run before this stage."""
    last: int
    """Latest step that has metrics."""
    planned: int | None
    images: int
    speed: float
    """Median of images per second; 0 if unknown."""
    best: tuple[int, float] | None
    """Step and value of the best checkpoint."""

    @property
    def seconds(self) -> float:
        """Time of the training steps, excluding samples and checkpoints."""
        return self.images / self.speed if self.speed else 0.0

    @property
    def duration(self) -> str:
        return _duration(self.seconds)


def _summarise(config: TrainConfig | None, schedule: Sequence[Stage], records: Sequence[Record]) -> list[StageSummary]:
    """One summary for each stage that is planned or has metrics, in order."""
    configs, metric = (config.stages, config.log.best) if config else ({}, "l1")
    planned = {stage.name: stage for stage in schedule}
    of_stage: dict[str, list[Record]] = {name: [] for name in configs}
    for record in records:
        of_stage.setdefault(record["stage"], []).append(record)
    summaries: list[StageSummary] = []
    last = 0
    for name, own in of_stage.items():
        first = planned[name].first_step if name in planned else last
        last = own[-1]["step"] if own else first
        stage = configs.get(name)
        speeds = [record["images_per_second"] for record in own if record.get("images_per_second")]
        summaries.append(
            StageSummary(
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
    """Step and value of the record with the best value of a metric, the first of equal ones."""
    name, best = record_name(metric), None
    for record in records:
        if name in record and (best is None or is_better(metric, record[name], best[1])):
            best = (record["step"], record[name])
    return best


def _trained_networks(stage: StageConfig, config: TrainConfig) -> str:
    return ", ".join(stage.trained_names(stage.model(config.model)))


def _duration(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds else ""


@dataclass(frozen=True)
class StageSamples:
    """The samples of a stage: for each example a row of its inputs and latest result, and a strip of earlier ones."""

    stage: str
    step: int
    examples: list[tuple[list[EmbeddedImage], list[EmbeddedImage]]]


def _stage_samples(run: Path, stages: Iterable[str]) -> list[StageSamples]:
    """Those of all stages that have samples, the latest first."""
    found = sorted(path.name for path in (run / "samples").glob("*") if path.is_dir())
    samples = []
    for stage in dict.fromkeys([*stages, *found]):
        folder = run / "samples" / stage
        steps = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit())
        if steps:
            examples = sorted(int(path.stem) for path in (folder / f"{steps[-1]:08d}").glob("*.png"))
            samples.append(StageSamples(stage, steps[-1], [_example(folder, k, steps) for k in examples]))
    return samples[::-1]


def _example(folder: Path, k: int, steps: Sequence[int]) -> tuple[list[EmbeddedImage], list[EmbeddedImage]]:
    """The images of one example; those that cannot be read are left out."""
    row = [(folder / "inputs" / f"{k}_{name}.png", title) for name, title in _INPUTS.items()]
    row.append((folder / f"{steps[-1]:08d}" / f"{k}.png", "generated"))
    # The last step is the result itself, so the strip ends before it.
    shown = [steps[i] for i in spread(len(steps), MOST_STEPS + 1)[:-1]]
    strip = [(folder / f"{step:08d}" / f"{k}.png", f"step {step:,}") for step in shown]
    return _readable(row), _readable(strip)


def _readable(files: Iterable[tuple[Path, str]]) -> list[EmbeddedImage]:
    images = []
    for file, title in files:
        with suppress(DataError):
            images.append(embed(read_photo(file), title, title in _MAPS, MOST_PIXELS))
    return images


def _changed_options(config: TrainConfig) -> dict[str, list[tuple[str, str, str]]]:
    """Name, value and default of the options that differ from the defaults of the family, by part of the config."""
    kind: Any = type(config)
    defaults = to_plain(kind())
    defaults["stages"] = {name: to_plain(type(stage)()) for name, stage in config.stages.items()}
    known = flattened(defaults)
    changed: dict[str, list[tuple[str, str, str]]] = {}
    for path, value in flattened(to_plain(config)).items():
        if path in known and known[path] == value:
            continue
        depth = 2 if path[0] == "stages" else 1 if len(path) > 1 else 0
        default = _shown(known[path]) if path in known else ""
        name = ".".join(path[depth:]).replace("_", "-")
        changed.setdefault(".".join(path[:depth]) or "run", []).append((name, _shown(value), default))
    return changed


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
