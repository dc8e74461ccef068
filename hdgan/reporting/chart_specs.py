"""What the charts of a run show: their titles, curves and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ChartSpec:
    """One chart, which is drawn if a run has recorded any of its curves."""

    title: str
    note: str
    """What the curves are, their unit, and whether lower or higher is better, in sentences."""
    names: dict[str, str]
    """Name of each curve by its key in metrics.jsonl, a regular expression to whose groups the name may refer."""
    losses_of: Literal["", "G", "D"] = ""
    """The network that has these losses."""
    smooth: bool = False
    scale: Literal["linear", "log"] = "linear"
    from_zero: bool = False
    of_validation: bool = False


_BOTH = "of generated images and photos, mean over the validation images"
_VALIDATIONS = {
    "l1": ("validation L1", f"Mean absolute difference {_BOTH}, with values from -1 to 1; lower is better."),
    "psnr": ("validation PSNR", f"Peak signal-to-noise ratio {_BOTH}, in dB; higher is better."),
    "ssim": ("validation SSIM", f"Structural similarity {_BOTH}, no unit, 1 for equal ones; higher is better."),
    "miou": (
        "validation mean IoU",
        "How well the classes that the scorer recognises in generated images overlap those of the label maps: "
        "intersection over union, mean over the classes, from 0 to 1; higher is better.",
    ),
    "pixel_accuracy": (
        "validation pixel accuracy",
        "Share of the pixels of generated images in which the scorer recognises the class of the label map, from 0 to "
        "1; higher is better.",
    ),
    "scorer_fid": (
        "validation scorer FID",
        "Fréchet distance between the scorer's features of generated images and those of photos, without unit; lower "
        "is better.",
    ),
}
SIZES_DIFFER = "Stages train at different sizes, so values of different stages cannot be compared."
VALIDATION_TITLES = {name: title for name, (title, _) in _VALIDATIONS.items()}
"""Titles of the metrics that `LogConfig.best` may name."""
VALIDATION_NOTES = {name: note for name, (_, note) in _VALIDATIONS.items()}
"""What these metrics are."""

CHARTS = (
    ChartSpec(
        "Generator losses",
        "The terms of G's loss times their weights, which the GAN term lacks; no unit. Lower is nearer to the photos, "
        "except for the GAN term, which says how well G deceives D and rises as D learns.",
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
        "D's loss on photos (real) and on generated images, summed over its scales; no unit. Neither high nor low is "
        "better: near 0, D recognises every image, and G learns little from it.",
        {"d_real": "real", "d_fake": "generated"},
        "D",
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Penalty of the discriminator",
        "R1: squared gradient of D's scores of real images, before its weight; no unit. A steep rise means that D "
        "becomes unstable.",
        {"d_r1": "R1"},
        "D",
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Augmentation of D's images",
        "Sign statistic: mean sign of D's scores of photos, from -1 to 1; D overfits where it is near 1. Probability: "
        "how often D's images are augmented, from 0 to 1.",
        {"d_sign": "sign statistic", "augment_p": "probability"},
        smooth=True,
    ),
    ChartSpec(
        "Distances",
        "Terms of the balanced perceptual loss before they are balanced, of the image and of each feature of the "
        "network; no unit; lower is better.",
        {"l1_image": "image", r"l1_feature_(\d+)": r"feature \1"},
        smooth=True,
        scale="log",
    ),
    ChartSpec(
        "Shift of the photos",
        "Mean length, in pixels, of the shift that brings a photo nearest to the generated image, up to the largest "
        "shift of the options; lower means that photos lie better on their maps.",
        {"photo_shift": "shift"},
        smooth=True,
        from_zero=True,
    ),
    *(
        ChartSpec(f"{title[0].upper()}{title[1:]}", note, {f"val_{name}": title}, of_validation=True)
        for name, (title, note) in _VALIDATIONS.items()
    ),
    ChartSpec(
        "Learning rate",
        "Of Adam, for G, E and D, as the schedule sets it; no unit. It is not a measure of quality.",
        {"lr": "learning rate", "lr_d": "of D"},
        from_zero=True,
    ),
    ChartSpec(
        "Gradients",
        "Norm of each network's gradient, before clipping; no unit. It should stay within an order of magnitude: a "
        "lasting rise means that training diverges.",
        {"grad_g": "G", "grad_d": "D"},
        smooth=True,
        scale="log",
    ),
    ChartSpec(
        "Saturated values",
        "Share of the values of images beyond ±0.99 on the scale from -1 to 1. Best where generated images have as "
        "many as photos.",
        {"fake_saturated": "generated", "real_saturated": "photos"},
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Contrast",
        "Standard deviation of a channel within an image, on the scale from -1 to 1. Best where generated images have "
        "as much as photos; near 0 they are plain areas.",
        {"fake_deviation": "generated", "real_deviation": "photos"},
        smooth=True,
        from_zero=True,
    ),
    ChartSpec(
        "Spots",
        "Largest pixel's share of the variance of a plane of G's features, in the worst layer, from 0 to 1. Lower is "
        "better: large shares become spots in images.",
        {"spots": "spots"},
        from_zero=True,
    ),
)


LOSS_TITLES = {key: f"{spec.losses_of} {name}" for spec in CHARTS if spec.losses_of for key, name in spec.names.items()}
"""Titles of the losses of G and D by their keys in metrics.jsonl."""
