"""What the charts of a run show: their titles, curves and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ChartSpec:
    """One chart, which is drawn if a run has recorded any of its curves."""

    title: str
    note: str
    names: dict[str, str]
    """Name of each curve by its key in metrics.jsonl, a regular expression to whose groups the name may refer."""
    losses_of: Literal["", "G", "D"] = ""
    """The network that has these losses."""
    smooth: bool = False
    scale: Literal["linear", "log"] = "linear"
    from_zero: bool = False
    of_validation: bool = False


_VALIDATIONS = {
    "l1": ("validation L1", "mean absolute difference of images in [-1, 1]"),
    "psnr": ("validation PSNR", "in dB; higher is better"),
    "ssim": ("validation SSIM", "higher is better"),
    "miou": ("validation mean IoU", "of the classes that the scorer recognises; higher is better"),
    "pixel_accuracy": ("validation pixel accuracy", "of the classes that the scorer recognises; higher is better"),
    "scorer_fid": ("validation scorer FID", "lower is better"),
}
SIZES_DIFFER = "stages train at different sizes, so values of different stages cannot be compared"
VALIDATION_TITLES = {name: title for name, (title, _) in _VALIDATIONS.items()}
"""Titles of the metrics that `LogConfig.best` may name."""

CHARTS = (
    ChartSpec(
        "Generator losses",
        "weighted, except the GAN term",
        {
            "g_gan": "GAN",
            "g_feature_matching": "feature matching",
            "g_vgg": "VGG",
            "g_l1": "L1",
            "g_perceptual": "perceptual",
        },
        "G",
        smooth=True,
        scale="log",
    ),
    ChartSpec(
        "Discriminator losses",
        "sum over the scales",
        {"d_real": "real", "d_fake": "generated"},
        "D",
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Penalty of the discriminator",
        "R1: squared gradient of its scores of real images, before its weight",
        {"d_r1": "R1"},
        "D",
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Augmentation of D's images",
        "D overfits where the sign statistic of its scores of photos is near 1",
        {"d_sign": "sign statistic", "augment_p": "probability"},
        smooth=True,
    ),
    ChartSpec(
        "Distances",
        "of the balanced perceptual loss, before balancing",
        {"l1_image": "image", r"l1_feature_(\d+)": r"feature \1"},
        smooth=True,
        scale="log",
    ),
    ChartSpec(
        "Shift of the photos",
        "mean length in pixels, up to the largest shift of the options",
        {"photo_shift": "shift"},
        smooth=True,
        from_zero=True,
    ),
    *(
        ChartSpec(f"{title[0].upper()}{title[1:]}", note, {f"val_{name}": title}, of_validation=True)
        for name, (title, note) in _VALIDATIONS.items()
    ),
    ChartSpec("Learning rate", "of Adam, for G, E and D", {"lr": "learning rate", "lr_d": "of D"}, from_zero=True),
    ChartSpec(
        "Gradients",
        "norm of each network's gradient, before clipping",
        {"grad_g": "G", "grad_d": "D"},
        smooth=True,
        scale="log",
    ),
    ChartSpec(
        "Saturated values",
        "share of the values of images beyond ±0.99",
        {"fake_saturated": "generated", "real_saturated": "photos"},
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Contrast",
        "deviation of a channel from its mean in an image",
        {"fake_deviation": "generated", "real_deviation": "photos"},
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Spots",
        "largest pixel's share of the variance of a plane of G, mean of the worst layer",
        {"spots": "spots"},
        from_zero=True,
    ),
)


LOSS_TITLES = {key: f"{spec.losses_of} {name}" for spec in CHARTS if spec.losses_of for key, name in spec.names.items()}
"""Titles of the losses of G and D by their keys in metrics.jsonl."""
