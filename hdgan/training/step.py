"""One training step of pix2pixHD (paper sections 3.1, 3.2; NVIDIA/pix2pixHD's formulation).

    min_G  sum_k ( L_GAN(G, D_k) + lambda L_FM(G, D_k) ) + lambda L_VGG(G)        max_D  sum_k L_GAN(G, D_k)

One forward pass of D over the generated picture serves both: its graph is walked once towards D, stopping before G, and
once towards G, skipping the gradients of D's weights. That is the original's step, which runs D on it twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hdgan import data
from hdgan.losses import VGGLoss, feature_matching_loss, gan_loss
from hdgan.models import Pix2PixHD
from hdgan.ops import InstanceIndex, instance_index
from hdgan.training.config import LossConfig
from hdgan.training.pool import FakePool

# The loss terms of a step in the order of `Objectives.parts`; d_real and d_fake enter D's objective halved.
LOSS_NAMES = ("g_gan", "g_feature_matching", "g_vgg", "d_real", "d_fake")


@dataclass(frozen=True)
class Inputs:
    """A micro batch on the training device, as integer maps: planes are made where they are used."""

    photo: Tensor  # [B, C, H, W] float in [-1, 1]
    label: Tensor | None  # [B, H, W] integer
    picture: Tensor | None  # [B, C, H, W] float in [-1, 1], input of A->B training
    ids: Tensor | None  # [B, H, W] integer

    @staticmethod
    def from_loader(sample: data.Batch, device: torch.device, memory_format: torch.memory_format) -> Inputs:
        """Move what the loader yields to the device; the photo arrives in 8 bits and becomes float there."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        photo = sample["photo"].to(device, non_blocking=True).float() / 127.5 - 1
        picture = moved(sample.get("input"))
        if picture is not None:
            picture = picture.contiguous(memory_format=memory_format)
        photo = photo.contiguous(memory_format=memory_format)
        return Inputs(photo, moved(sample.get("label")), picture, moved(sample.get("ids")))

    def split(self, size: int | None) -> Iterator[Inputs]:
        """Cut into micro batches of `size` pictures; None leaves the batch whole."""
        parts = [
            (None if t is None else t.split(size or len(t))) for t in (self.photo, self.label, self.picture, self.ids)
        ]
        assert parts[0] is not None
        for i in range(len(parts[0])):
            yield Inputs(*(None if part is None else part[i] for part in parts))  # type: ignore[arg-type]

    def instances(self) -> InstanceIndex:
        """What E's features are averaged over: the instances, or where there are none the classes."""
        areas = self.ids if self.ids is not None else self.label
        assert areas is not None
        return instance_index(areas)


@dataclass(frozen=True)
class Objectives:
    """The two objectives of a step, still attached to their graph, and their parts for the log."""

    generator: Tensor
    discriminator: Tensor
    parts: Tensor
    """[len(LOSS_NAMES)] float32, detached, weighted as in the original's log; zero for a loss that is left out."""


class Criterion:
    """The losses of a run with their weights."""

    def __init__(self, config: LossConfig, vgg: VGGLoss | None, pool: FakePool) -> None:
        self.config = config
        self.vgg = vgg
        self.pool = pool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses that this run has."""
        left_out = {"g_feature_matching": not self.config.feature_matching, "g_vgg": self.vgg is None}
        return tuple(name for name in LOSS_NAMES if not left_out.get(name))

    def __call__(self, model: Pix2PixHD, batch: Inputs) -> Objectives:
        """Run the networks on a micro batch and return both objectives."""
        photo, mode = batch.photo, self.config.gan
        condition = model.condition(batch.label, batch.ids, batch.picture)
        features = model.encode(photo, batch.instances()) if model.encoder is not None else None
        fake = model.generate(condition, features)

        context = model.context(condition)
        fake_outputs = model.discriminate(context, fake)
        real_outputs = model.discriminate(context, photo)
        pooled_outputs = self.pool.outputs(model, condition, fake, fake_outputs)

        g_gan = gan_loss(fake_outputs, real=True, mode=mode)
        zero = torch.zeros_like(g_gan)
        g_feature_matching = (
            self.config.feature_matching * feature_matching_loss(fake_outputs, real_outputs)
            if self.config.feature_matching
            else zero
        )
        g_vgg = self.config.vgg * self.vgg(fake, photo) if self.vgg is not None else zero
        d_real = gan_loss(real_outputs, real=True, mode=mode)
        d_fake = gan_loss(pooled_outputs, real=False, mode=mode)

        return Objectives(
            generator=g_gan + g_feature_matching + g_vgg,
            discriminator=(d_real + d_fake) / 2,
            parts=torch.stack([g_gan, g_feature_matching, g_vgg, d_real, d_fake]).detach(),
        )


def accumulate_gradients(
    objectives: Objectives, g_parameters: list[Tensor], d_parameters: list[Tensor], rounds: int
) -> None:
    """Add this micro batch's gradients, each objective's to its own network's parameters alone.

    D goes first: the walk towards G comes through all that is left of the graph and frees it.
    """
    (objectives.discriminator / rounds).backward(inputs=d_parameters, retain_graph=True)
    (objectives.generator / rounds).backward(inputs=g_parameters)
