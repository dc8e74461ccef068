"""The losses of pix2pixHD (paper sections 3.1, 3.2) and of CRN.

GAN losses take the output of a multi-scale discriminator: a list over scales of lists over layers. The last of each
inner list is the score of every patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.ops.l1_distance import l1_distance
from hdgan.wording import count

Outputs = Sequence[Sequence[Tensor]]
GanMode = Literal["lsgan", "vanilla", "hinge"]

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of the five features, relu1_1 … relu5_1 of VGG19, as in NVIDIA/pix2pixHD. They suit images of 1024x512 and
more; `fine_weights` are for smaller ones."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RGB_CHANNELS = (1, 3)
"""Channels of the images that a network for RGB can take; see `as_rgb` and `rgb_obstacle`."""


def gan_loss(outputs: Outputs, real: bool, mode: GanMode = "lsgan", *, of_generator: bool = False) -> Tensor:
    """GAN loss, summed over scales.

    Args:
        outputs: of the discriminator: for each scale a list that ends with the score of every patch, [B, 1, h, w].
        real: whether the scores should say real (1) or fake (0).
        mode: "lsgan", the mean squared distance to the target (Mao et al. 2017); "vanilla", the cross entropy of the
            scores taken as logits; or "hinge" (Lim and Ye 2017), in which D stops at a margin of 1.
        of_generator: the loss of G, which in "hinge" has no margin: the mean score with its sign changed.

    Returns:
        Scalar float32.

    Raises:
        ValueError: another mode.
    """
    if mode not in get_args(GanMode):
        *others, last = get_args(GanMode)
        raise ValueError(f"gan_loss: expected mode {', '.join(others)} or {last}, got {mode!r}")
    total = outputs[0][-1].new_zeros((), dtype=torch.float32)
    for *_, score in outputs:
        total = total + _score_loss(score.float(), real, mode, of_generator)
    return total


def _score_loss(score: Tensor, real: bool, mode: GanMode, of_generator: bool) -> Tensor:
    if mode == "hinge":
        wrong = -score if real else score
        return wrong.mean() if of_generator else F.relu(1 + wrong).mean()
    target = torch.full_like(score, float(real))
    return F.mse_loss(score, target) if mode == "lsgan" else F.binary_cross_entropy_with_logits(score, target)


def r1_penalty(outputs: Outputs, image: Tensor) -> Tensor:
    """The squared gradient of D's scores with respect to a real image (R1, Mescheder et al. 2018), without its weight.

        sum_k 1/N_k |d(sum of the N_k scores of scale k) / d image|^2,   averaged over the images

    Divided by the number of scores, it does not grow with the size of the image: one weight suits all stages of a run.

    Args:
        outputs: of the discriminator, still attached to their graph, which is kept.
        image: [B, C, H, W], what they were computed from; it requires gradients.

    Returns:
        Scalar float32, which can be differentiated again.
    """
    total = image.new_zeros((), dtype=torch.float32)
    for *_, score in outputs:
        (gradient,) = torch.autograd.grad(score.float().sum(), image, create_graph=True)
        total = total + gradient.float().square().sum() / score.numel()
    return total


def feature_matching_loss(fake: Outputs, real: Outputs) -> Tensor:
    """L1 distance of the discriminator's features of fake and real images (paper equation 4), without their weight.

    Averaged over scales; each layer counts 4 / (number of layers with a feature), as in NVIDIA/pix2pixHD. The real
    features are targets: no gradient flows to them.

    Args:
        fake: discriminator outputs with intermediate features.
        real: the same for the real images.

    Returns:
        Scalar float32.

    Raises:
        ValueError: the outputs hold scores only.
    """
    if len(fake[0]) < 2:
        raise ValueError(
            "feature_matching_loss: expected features of every layer, got scores: intermediate_features=True"
        )
    total = fake[0][-1].new_zeros((), dtype=torch.float32)
    for fake_scale, real_scale in zip(fake, real, strict=True):
        layer_weight = 4.0 / (len(fake_scale) - 1)
        for fake_feature, real_feature in zip(fake_scale[:-1], real_scale[:-1], strict=True):
            total = total + layer_weight / len(fake) * l1_distance(fake_feature, real_feature)
    return total


def as_rgb(image: Tensor) -> Tensor:
    """Images for a network that takes RGB: the channel of grey images is repeated.

    Args:
        image: [B, 1 or 3, H, W].

    Returns:
        [B, 3, H, W]: RGB images as they are, of grey ones a view.

    Raises:
        ValueError: the images have another number of channels.
    """
    if image.shape[1] not in RGB_CHANNELS:
        raise ValueError(f"as_rgb: expected images of 1 or 3 channels, got {image.shape[1]}")
    return image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)


def rgb_obstacle(channels: int, images: str = "these") -> str:
    """Why a network for RGB cannot take images of so many channels, as a predicate; empty if `as_rgb` suits them.

    Args:
        channels: of the images.
        images: a noun for them.
    """
    if channels in RGB_CHANNELS:
        return ""
    return f"takes RGB or grey images, but {images} have {count(channels, 'channel')}"


def fine_weights(n: int) -> tuple[float, ...]:
    """Weights of the `n` features of a network, fine to coarse, for images smaller than those of the paper.

    `LAYER_WEIGHTS` put nearly all weight on features of stride 16 or 32. In an image of 128x64 these are maps of 8x4 or
    4x2 pixels, which say little of what a pixel should look like.
    """
    return (*(1.0 for _ in range(n - 2)), 0.5, 0.25)[-n:]


class PerceptualFeatures(nn.Module):
    """The features that a frozen network computes from an image, which perceptual losses compare.

    Args:
        network: maps images [B, 3, H, W] to features, fine to coarse; `VGG19Features` with its weights loaded.
        imagenet_normalisation: shift and scale images as VGG was trained; off in NVIDIA/pix2pixHD, which feeds [-1, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, imagenet_normalisation: bool = False) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.imagenet_normalisation = imagenet_normalisation
        device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1))

    def features(self, image: Tensor) -> list[Tensor]:
        """Of images [B, 3, H, W] in [-1, 1], or grey ones [B, 1, H, W]."""
        image = as_rgb(image)
        if self.imagenet_normalisation:
            image = ((image + 1) / 2 - self.mean) / self.std
        features: list[Tensor] = self.network(image)
        return features


class PerceptualLoss(PerceptualFeatures):
    """L1 distance of the features of a network, without its weight: the VGG loss (Johnson et al. 2016) with VGG19.

    Args:
        network, imagenet_normalisation: as of `PerceptualFeatures`.
        layer_weights: of the features, fine to coarse.
        relative: divide each distance of each image by the mean magnitude of the photo's feature. The features of one
            network can be a hundred times as large as those of another, and so would be the weight of the loss. A
            feature of the photo that is 0 everywhere does not count.
    """

    def __init__(
        self,
        network: nn.Module,
        imagenet_normalisation: bool = False,
        layer_weights: Sequence[float] = LAYER_WEIGHTS,
        relative: bool = False,
    ) -> None:
        super().__init__(network, imagenet_normalisation)
        self.layer_weights = tuple(layer_weights)
        self.distance = _relative_distance if relative else l1_distance

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Compare images [B, 3, H, W] in [-1, 1]; `real` is a target without gradient. Returns a scalar float32."""
        with torch.no_grad():
            targets = self.features(real)
        total = fake.new_zeros((), dtype=torch.float32)
        for weight, feature, target in zip(self.layer_weights, self.features(fake), targets, strict=True):
            total = total + weight * self.distance(feature, target)
        return total


class BalancedPerceptualLoss(PerceptualFeatures):
    """L1 distances of an image and of its features, balanced against each other (arXiv 1707.09405, section 3).

        sum_l lambda_l d_l,   lambda_l = d_image / d_l  as a constant, for each image on its own

    So every term contributes as much as the image itself. The paper wants that in expectation, with constants that are
    measured in the 100th epoch. Here nothing has to be measured first and no state has to be saved, and neither the
    division of a batch nor the number of processes changes a gradient.

    With several images of one condition (the paper's diversity) every class may choose the best of them:

        sum_c ( 0.999 min_k + 0.001 mean_k )  sum_l lambda_l d_l(k, c)

    where d_l(k, c) counts the pixels of class c alone. The mean, which is in the authors' code, keeps training images
    that are never the best. Takes the arguments of `PerceptualFeatures`.
    """

    SHARE_OF_MEAN = 0.001

    def forward(self, images: Tensor, real: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compare images with a photo, which is a target without gradient.

        Args:
            images: [B, K, 3, H, W], around [-1, 1].
            real: [B, 3, H, W] in [-1, 1].
            masks: [B, M, H, W], the pixels of each class, which sum to 1; None counts all pixels as one class.

        Returns:
            The loss, scalar float32, and the distances d [1 + number of features] float32 of the image and of the
            features, detached and without weights.
        """
        with torch.no_grad():
            targets = [real, *self.features(real)]
        features = [images, *(f.unflatten(0, images.shape[:2]) for f in self.features(images.flatten(0, 1)))]
        terms = torch.stack(
            [_class_distances(x, target, masks) for x, target in zip(features, targets, strict=True)]
        )  # [N, B, K, M]
        distances = terms.detach().sum(-1).mean(-1)  # [N, B]
        # A feature that is always equal, for example of dead ReLUs, does not count.
        weights = distances[0] / distances.clamp_min(1e-12)
        contents = (weights[..., None, None] * terms).sum(0)  # [B, K, M]
        chosen = torch.lerp(contents.amin(1), contents.mean(1), self.SHARE_OF_MEAN)
        return chosen.sum(-1).mean(), distances.mean(1)


def _relative_distance(feature: Tensor, target: Tensor) -> Tensor:
    """L1 distance [] of features [B, C, h, w], each image's in units of the mean magnitude of its target."""
    size = target.float().abs().mean((1, 2, 3))
    share = torch.where(size > 0, 1 / size, 0)
    distances = torch.stack([l1_distance(one, goal) for one, goal in zip(feature, target, strict=True)])
    return (share * distances).mean()


def _class_distances(x: Tensor, target: Tensor, masks: Tensor | None) -> Tensor:
    """L1 distances [B, K, M] of x [B, K, C, h, w] to a target [B, C, h, w], where masks [B, M, H, W] are 1."""
    if masks is None:
        pairs = [(image, goal) for images, goal in zip(x, target, strict=True) for image in images]
        return torch.stack([l1_distance(image, goal) for image, goal in pairs]).view(*x.shape[:2], 1)
    height, width = x.shape[3:]
    difference = (x.float() - target.float().unsqueeze(1)).abs().mean(2)  # [B, K, h, w]
    at_resolution = F.adaptive_avg_pool2d(masks.float(), (height, width))
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("bkhw,bmhw->bkm", difference, at_resolution) / (height * width)
