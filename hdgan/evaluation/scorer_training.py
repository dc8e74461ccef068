"""Training of the built-in scorer. It uses only real training photos and never sees a generated image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from hdgan.config.bounds import BatchSize, LearningRate, Positive, Seed, Width
from hdgan.config.options import option
from hdgan.config.serialization import check_values, to_plain
from hdgan.data import (
    DataConfig,
    LoaderBatch,
    PairedDataset,
    SizeConfig,
    find_pairs,
    make_loader,
    photo_to_unit_range,
)
from hdgan.devices import choose_device, network_format
from hdgan.errors import ConfigError, TrainingError
from hdgan.evaluation.split import require_photos
from hdgan.losses import as_rgb, rgb_obstacle
from hdgan.models.segmenter import Segmenter, SegmenterConfig, save_segmenter
from hdgan.progress import print_lines, showing_progress
from hdgan.scenes import with_scenes


@dataclass(frozen=True)
class ScorerTraining:
    """How the built-in scorer is trained."""

    steps: Positive = 600
    """Optimizer steps."""
    batch_size: BatchSize = 4
    """Images in each step."""
    lr: LearningRate = 2e-3
    """Learning rate of Adam, which falls to zero along a cosine."""
    width: Width = 16
    """Channels of the network's finest level."""
    seed: Seed = 0
    """Seed of the weights, and of the order, crops and flips of the images."""

    def __post_init__(self) -> None:
        check_values(self, "scorer_training")


def train_scorer(
    data: DataConfig,
    n_labels: int,
    size: SizeConfig,
    out: Path,
    training: ScorerTraining = ScorerTraining(),
    *,
    device: str = "auto",
    for_run: bool = False,
    console: Console | None = None,
) -> Path:
    """Train the built-in scorer on the photos and label maps of the training phase, and write it.

    The loss is a cross entropy in which rare classes weigh more and pixels whose label is `data.dontcare` do not count.
    The optimizer is Adam. `size` and `data.flip` determine crops and flips. The same seed gives the same scorer on the
    same machine. The file is written when training ends, so Ctrl-C leaves none.

    Args:
        data: the dataset; without a root the built-in scenes.
        n_labels: number of classes in its label maps.
        size: of the images. With more than one image in a batch all must have the same size after scaling and cropping.
        out: file to write, *.safetensors.
        training: steps, batches and width of the network.
        device: auto, cpu, cuda or cuda:N.
        for_run: whether the classes are those of a trained model, for messages.
        console: for progress.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` exists already or has another ending, or the data has no label maps.
        DataError: the data cannot be used, or has no photos.
        TrainingError: the loss is not finite.
        HdganError: the file cannot be written.
    """
    console = console or Console(quiet=True)
    _require_free(out)
    if n_labels < 1:
        raise ConfigError(f"a scorer learns to recognise classes, but n_labels is {n_labels}: give data with labels")
    chosen = choose_device(device)
    data = with_scenes(data, n_labels, console)
    listing = find_pairs(data, data.train_phase, labels=True)
    require_photos(listing, data)
    with torch.random.fork_rng(devices=[chosen] if chosen.type == "cuda" else []):
        torch.manual_seed(training.seed)
        network = Segmenter(SegmenterConfig(n_labels, training.width))
    network.to(chosen, memory_format=network_format(chosen))  # type: ignore[call-overload]
    dataset = PairedDataset(listing.pairs, data, size, n_labels, train=True, seed=training.seed, trained=for_run)
    if obstacle := rgb_obstacle(dataset.photo_kind.channels, "the photos"):
        raise ConfigError(f"a scorer {obstacle}: leave {option('train_scorer')} out")
    loss = _optimise(network, dataset, training, chosen, console)
    about = {
        "trained_on": {"data": to_plain(data), "size": to_plain(size)},
        "training": to_plain(training),
        "loss": loss,
    }
    save_segmenter(out, network, about)
    print_lines(console, f"scorer: {out}")
    return out


def _optimise(
    network: Segmenter, dataset: PairedDataset, options: ScorerTraining, device: torch.device, console: Console
) -> float:
    """Train all steps and return the last loss."""
    loader = make_loader(
        dataset,
        stop=options.steps * options.batch_size,
        batch=options.batch_size,
        seed=options.seed,
        workers=dataset.data.workers,
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.Adam(network.parameters(), options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    criterion, value = _BalancedCrossEntropy(network.config.n_labels, device), float("nan")
    with showing_progress(console) as progress:
        progress("training the scorer", 0, options.steps)
        for step, batch in enumerate(loader, start=1):
            image, label = _moved(batch, device, dataset)
            loss = criterion(network(image), label)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % _CHECK_EVERY == 0 or step == options.steps:
                value = float(loss.detach())
                _require_finite(value, step)
                progress("training the scorer", step, options.steps, f"loss {value:.3f}")
    return value


class _BalancedCrossEntropy:
    """Cross entropy in which the weight of a class is the inverse square root of its share of all pixels so far.

    Without weights a short training never recognises the rarest classes and predicts their surroundings instead.
    """

    def __init__(self, n_labels: int, device: torch.device) -> None:
        self.counts = torch.ones(n_labels, dtype=torch.int64, device=device)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """The mean over the pixels that count, 0 if there are none; logits [B, C, H, W], label [B, H, W] int64."""
        counted = label[label != _IGNORED]
        self.counts += torch.bincount(counted, minlength=len(self.counts))
        weight = (self.counts / self.counts.sum()).rsqrt()
        total = F.cross_entropy(logits, label, weight, ignore_index=_IGNORED, reduction="sum")
        return total / weight[counted].sum().clamp(min=1)


_CHECK_EVERY = 10
"""Steps between checks of the loss, each of which waits for the device."""
_IGNORED = -100


def _moved(batch: LoaderBatch, device: torch.device, dataset: PairedDataset) -> tuple[Tensor, Tensor]:
    """Photos in [-1, 1], and labels in which pixels without a class are _IGNORED."""
    image = as_rgb(photo_to_unit_range(batch["photo"].to(device, non_blocking=True)))
    label = batch["label"].to(device, non_blocking=True).long()
    if dataset.data.dontcare is not None:
        label = label.masked_fill(label == dataset.data.dontcare, _IGNORED)
    return image.contiguous(memory_format=network_format(device)), label


def _require_free(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} must end in .safetensors, which tells hdgan's scorers from others")
    if out.exists():
        raise ConfigError(
            f"{out} already exists: use it without {option('train_scorer')}, delete it, or choose another file"
        )


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"step {step} of the scorer's training: the loss is {loss}; lower {option('scorer_training.lr')}"
        )
