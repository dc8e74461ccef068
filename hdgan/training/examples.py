"""The validation images that a run generates, and the mean styles that a checkpoint contains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from hdgan.data import PairedDataset
from hdgan.data.colors import colorize_ids, colorize_labels, preview
from hdgan.families import ImageModel
from hdgan.families.common.batch import Batch
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.saving import CLASS_MEAN
from hdgan.files import save_png
from hdgan.ops import instance_reduce
from hdgan.seeding import seeded
from hdgan.styles.table import classes_of


class Examples:
    """The fixed validation images of a run.

    Args:
        dataset: validation pairs with photos, at the size of the stage.
        config: of the run; the networks run in its precision and memory format.
        device: of the model.
        palette: colours of the classes, [n_classes, 3] uint8; None takes a general one.
    """

    def __init__(
        self, dataset: PairedDataset, config: TrainConfig, device: torch.device, palette: np.ndarray | None = None
    ) -> None:
        self.palette = palette
        self.dataset = dataset
        self.config = config
        self.device = device
        self._shown = 0

    def inputs(self, count: int) -> Iterator[Batch]:
        """The first `count` pairs, each as a batch of one."""
        for index in range(min(count, len(self.dataset))):
            sample = default_collate([self.dataset[index]])
            yield Batch.from_loader(sample, self.device, self.config.format_on(self.device))

    @torch.inference_mode()
    def write(self, model: ImageModel, folder: Path, step: int, count: int) -> None:
        """Write generated images to folder/<step>/<k>.png and, once, what they are made from to folder/inputs/.

        The files are for people: they have 8 bits, and of images with other than three channels one or three.
        Existing files in folder/inputs/ may be of other data or sizes, and are overwritten.
        """
        for k, inputs in enumerate(self.inputs(count)):
            if k >= self._shown:
                for name, image in self._sources(inputs):
                    save_png(image, folder / "inputs" / f"{k}_{name}.png")
                self._shown = k + 1
            save_png(preview(self.generate(model, inputs, k)[0])[0], folder / f"{step:08d}" / f"{k}.png")

    def generate(self, model: ImageModel, inputs: Batch, index: int) -> Tensor:
        """G's image for inputs with a photo: [B, C, H, W] float32 in [-1, 1]. Features, if any, are the photo's.

        If the model uses noise, it follows from the run's seed and the index, so only the weights make a difference.
        """
        with self.config.autocast(self.device), seeded(self.device, self.config.seed, index):
            condition = model.condition(inputs.label, inputs.ids, inputs.source)
            features = model.encode(inputs.photo, inputs.instances()) if model.encoder is not None else None
            return model.generate(condition, features).float()

    def _sources(self, inputs: Batch) -> Iterator[tuple[str, Image.Image]]:
        if inputs.label is not None:
            yield "label", colorize_labels(inputs.label[0].cpu().numpy(), self.palette)
        if inputs.source is not None:
            yield "input", preview(inputs.source[0])[0]
        if inputs.ids is not None:
            yield "instances", colorize_ids(inputs.ids[0].cpu().numpy())
        yield "real", preview(inputs.photo[0])[0]


@torch.no_grad()
def mean_styles(model: ImageModel, examples: Examples, count: int) -> dict[str, Tensor]:
    """Mean feature of each class over the instances of the first `count` pairs, where each instance counts once.

    An instance has the class that most of its pixels have, as at inference; all of A->B training have one class.

    Returns:
        The tensor CLASS_MEAN [n_classes, feature_channels] by its name, where a class without instances has the mean
        over all; empty for a model without features.
    """
    if model.encoder is None:
        return {}
    labels, values = [], []
    for inputs in examples.inputs(count):
        index = inputs.instances()
        with examples.config.autocast(examples.device):
            encoded = model.encoder(inputs.photo, index)
        values.append(instance_reduce(encoded.float(), index))
        if inputs.label is None:
            labels.append(torch.zeros(len(index.ids), dtype=torch.int64))
        else:
            labels.append(torch.from_numpy(classes_of(index, inputs.label, model.config.instance_divisor)))
    features, classes = torch.cat(values), torch.cat(labels).to(examples.device)
    overall = features.mean(0)
    n_classes = max(model.config.n_labels, 1)
    known = (classes >= 0) & (classes < n_classes)
    features, classes = features[known], classes[known]
    counts = torch.bincount(classes, minlength=n_classes)
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, classes, features)
    means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], overall)
    return {CLASS_MEAN: means.cpu()}
