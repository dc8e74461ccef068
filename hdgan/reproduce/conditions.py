"""What the page says about the runs of a scale before their scores: what was trained and measured, with what, and how
long it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hdgan.metrics.scores import TITLES
from hdgan.reproduce.results import REAL, Requested, Result
from hdgan.wording import count

COLUMNS = {
    "miou": ("mean IoU ↑", 3),
    "pixel_accuracy": ("pixel accuracy ↑", 3),
    "psnr": ("PSNR, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "lpips": ("LPIPS ↓", 3),
    "fid": ("FID ↓", 1),
    "kid": ("KID ↓", 4),
    "scorer_fid": ("FID of the scorer's features ↓", 4),
    "spectrum": ("spectrum, dB ↓", 2),
    "pattern": ("pattern, dB ↓", 2),
    "instance_edges": ("instance edges ↑", 2),
}
"""Metrics of the tables, with their headings and digits."""


@dataclass(frozen=True)
class Measured:
    """The rows of one scale, and what was requested."""

    results: Sequence[Result]
    requested: Requested

    @property
    def scale(self) -> str:
        return self.results[0].scale

    @property
    def runs(self) -> list[Result]:
        """The rows without that of real photos."""
        return [result for result in self.results if result.row != REAL]


def conditions(measured: Measured) -> str:
    """Paragraphs about what the numbers were measured with."""
    runs, first = measured.runs, measured.results[0]
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    machines = sorted({f"{run.device or 'an unknown device'}{_machine(run)}" for run in runs})
    versions = sorted({f"PyTorch {run.torch}, hdgan {run.hdgan}" for run in runs})
    lines = [
        f"Runs: {len(runs)}, models: {len({run.row for run in runs})}, seeds: {', '.join(map(str, seeds))}. "
        f"{_taken(measured.requested)}Each "
        f"trains on {first.train_scenes} scenes for {_range(run.steps for run in runs)} steps, {first.images} "
        f"images, and is scored on {first.held_out} held-out scenes.",
        f"Measured on {'; '.join(machines)}; scored by {'; '.join(versions)}. {_time(measured)}",
        *_training(measured.requested),
        *_perceptual_networks(runs),
        f"The FID of the scorer's features takes a covariance of {first.scorer_features} features from "
        f"{first.held_out} images. It compares the rows of this scale only.",
    ]
    missing = {note for run in runs for note in run.notes.split("; ") if note}
    lines += [f"Not available: {note}." for note in sorted(missing)]
    unknown = [name for name in COLUMNS if all(name not in run.metrics for run in runs)]
    if unknown:
        names = ", ".join(TITLES[name] for name in unknown)
        lines.append(f"Not measured, since hdgan did not have them when these runs were scored: {names}.")
    return "\n\n".join(lines)


def _taken(requested: Requested) -> str:
    """A sentence about the rows of earlier calls; empty if there are none."""
    if not requested.taken:
        return ""
    return (
        f"The last call took {count(requested.taken, 'row')} of earlier ones, with the networks that trained and "
        "scored them, and trained the others. "
    )


def _training(requested: Requested) -> list[str]:
    """A paragraph about what training changes from the paper; none for rows of versions that changed nothing."""
    sentences = []
    if requested.noise:
        sentences.append(
            "The generators of pix2pixHD and its ablations have noise "
            f"(`--model.generator.noise {requested.noise:g}`); the paper's have none."
        )
    if requested.feature_weights:
        weights = ", ".join(f"{weight:g}" for weight in requested.feature_weights)
        sentences.append(
            f"Their perceptual loss weighs the features, fine to coarse, by {weights} (`--loss.vgg-layers`). NVIDIA's "
            "weights, 1/32, 1/16, 1/8, 1/4 and 1, suit larger images."
        )
    if requested.precision != "float32":
        sentences.append(f"All rows were trained in {requested.precision} and scored in float32.")
    return [" ".join(sentences)] if sentences else []


def _perceptual_networks(runs: Iterable[Result]) -> list[str]:
    """A paragraph for each network whose features perceptual losses compared."""
    found = dict.fromkeys(run.perceptual_network for run in runs)
    return [
        _TWIN if network.is_twin else _ANOTHER.format(network.name, network.digest)
        for network in found
        if network is not None
    ]


_TWIN = (
    "The perceptual loss has no ImageNet weights: it compares the features of a small segmentation network that was "
    "trained on the training scenes (`--loss.network`). The scorer is another such network, which differs from it only "
    "in its seed; architecture, images and steps are the same. No loss uses the scorer itself, but this favours CRN "
    "and the other rows with a perceptual loss."
)
_ANOTHER = (
    "The perceptual loss compares the features of `{}` (SHA-256 {}…, `--network`). The scorer is a small segmentation "
    "network that was trained on the training scenes; no loss uses it."
)


def _machine(run: Result) -> str:
    if run.cores is None:
        return ""
    return f" ({run.cores} cores), jobs side by side: {run.jobs}, threads of each: {run.threads}"


def _time(measured: Measured) -> str:
    """A sentence about the time of all jobs together, and from the first to the last."""
    records = [*measured.runs, *measured.requested.networks.values()]
    kept = [r for r in records if r is not None and r.seconds is not None and r.began and r.ended]
    networks = count(len(measured.requested.networks), "network")
    if not kept:
        return "The time was not recorded."
    hours = sum(record.seconds or 0.0 for record in kept) / 3600
    cpu_hours = sum(record.cpu_seconds or 0.0 for record in kept) / 3600
    first, last = min(record.began for record in kept), max(record.ended for record in kept)
    minutes = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() / 60
    return (
        f"{len(kept)} of {len(records)} jobs (runs with their scoring, and {networks}) recorded their time: together "
        f"{hours:.2f} hours, with {cpu_hours:.2f} hours of CPU time; {minutes:.0f} minutes from the start of the first "
        "to the end of the last, breaks included. Work that was lost when `hdgan reproduce` was killed is not counted."
    )


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
