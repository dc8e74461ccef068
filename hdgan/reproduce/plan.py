"""The tables as data: their rows, what each row trains, and at what scale.

The row of an ablation changes the options that its table names and nothing else. Rows that tables share are trained
once. All rows see the same number of training images with the same learning rate, which falls over the same number of
images at the end, and compare the features of the same network wherever they have a perceptual loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.losses import fine_weights
from hdgan.reproduce.scales import Scale
from hdgan.scenes import SPEC

SCORER, PERCEPTUAL = "scorer", "perceptual"
NETWORKS = {SCORER: 0, PERCEPTUAL: 1}
"""The networks that are trained first, on real images alone, and their seeds.

Scorer and perceptual network differ, so that no training minimises a distance between features of the scorer. The
perceptual network is trained only where no other is given.
"""
NOISE = 0.3
"""Of the generators of pix2pixHD and its ablations (`--model.generator.noise`)."""

Options = dict[str, Any]
"""Options of `hdgan train` by their place in the configuration, such as `stages.joint.images`."""


@dataclass(frozen=True)
class Experiment:
    """The training of one row of the tables."""

    title: str
    """What the tables call the row."""
    preset: str
    """Of `hdgan train`."""
    options: Callable[[Scale], Options]
    """What the whole method adds to its preset, without the perceptual loss."""
    perceptual: Callable[[int], Options] | None = None
    """What its perceptual loss adds, by the number of the network's features, besides the network; None without one."""
    ablation: Options = field(default_factory=dict)
    """What this row changes in the whole method, besides leaving out the perceptual loss."""


def pix2pixhd(scale: Scale) -> Options:
    """The whole method: coarse to fine, three discriminators, all losses, instance boundaries; no features."""
    return {
        "model.feature_channels": 0,
        "model.generator.ngf": scale.ngf,
        "model.generator.n_blocks": scale.n_blocks,
        "model.generator.noise": NOISE,
        "model.discriminator.ndf": scale.ndf,
        "loss.vgg": 0.0,  # the demo has a perceptual loss
        **_stage("global", scale, scale.coarse, halvings=1),
        **_stage("enhancer", scale, scale.enhancer),
        **_stage("joint", scale, scale.joint, decay=scale.decay),
        "stages.enhancer.n_scales": 3,
        "stages.joint.n_scales": 3,
    }


def global_alone(scale: Scale) -> Options:
    """G1 without an enhancer, trained at the full resolution from the first image."""
    return {
        **pix2pixhd(scale),
        **_stage("global", scale, scale.images, decay=scale.decay),
        "stages.global.n_scales": 3,
        "stages.enhancer.images": 0,
        "stages.joint.images": 0,
    }


def pix2pix(scale: Scale) -> Options:
    """U-Net and PatchGAN, vanilla GAN + 100 L1; without instance boundaries, as in the original."""
    return {
        "data.root": None,
        "model.n_labels": SPEC.n_labels,
        "model.generator.ngf": scale.unet,
        "model.discriminator.ndf": scale.ndf,
        **_stage("global", scale, scale.images, decay=scale.decay),
        "stages.global.size.jitter": 0,
    }


def crn(scale: Scale) -> Options:
    """Cascaded refinement from 4 rows on, with only the perceptual loss; it sees no instance boundaries either."""
    return {
        "data.root": None,
        "model.n_labels": SPEC.n_labels,
        "model.n_modules": scale.height.bit_length() - 2,
        "model.width": scale.crn,
        "optim.beta1": 0.5,
        **_stage("coarse", scale, scale.images, decay=scale.decay),
        "stages.fine.images": 0,
    }


def _stage(name: str, scale: Scale, images: int, *, decay: int = 0, halvings: int = 0) -> Options:
    """A stage of this many images; over the last `decay` of them its learning rate falls."""
    return {
        f"stages.{name}.images": images,
        f"stages.{name}.decay": decay / images,
        f"stages.{name}.lr": scale.lr,
        f"stages.{name}.batch_size": scale.batch_size,
        f"stages.{name}.size.width": scale.width >> halvings,
        f"stages.{name}.size.height": scale.height >> halvings,
    }


def _weighted(n: int) -> Options:
    return {"loss.vgg": 10.0, "loss.vgg_layers": fine_weights(n)}


def _balanced(n: int) -> Options:
    """CRN balances its terms itself."""
    return {}


_ONE_SCALE: Options = {f"stages.{name}.n_scales": 1 for name in ("global", "enhancer", "joint")}

ROWS: dict[str, Experiment] = {
    "pix2pix": Experiment("pix2pix", "pix2pix", pix2pix),
    "crn": Experiment("CRN", "crn", crn, _balanced),
    "pix2pixhd": Experiment("pix2pixHD", "demo", pix2pixhd, _weighted),
    "gan-fm": Experiment("GAN + feature matching", "demo", pix2pixhd),
    "gan": Experiment("GAN", "demo", pix2pixhd, None, {"loss.feature_matching": 0.0}),
    "one-d": Experiment("one discriminator", "demo", pix2pixhd, _weighted, _ONE_SCALE),
    "g1": Experiment("G1 alone", "demo", global_alone, _weighted),
    "no-instances": Experiment("without instance boundaries", "demo", pix2pixhd, _weighted, {"model.instances": False}),
    "features": Experiment("with features", "demo", pix2pixhd, _weighted, {"model.feature_channels": 3}),
}


def require_rows(names: Sequence[str]) -> None:
    """Refuse names of rows that no table has.

    Raises:
        ConfigError: there is one, or there is no name at all.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        given = f"{unknown[0]:.60} is no row of the tables" if unknown else "is empty"
        raise ConfigError(f"{option('rows')} {given}: give some of {', '.join(ROWS)}")


def training_options(scale: Scale, row: str, seed: int, network: Options, n_features: int) -> Options:
    """What the run of a row and a seed adds to its preset.

    Args:
        scale, row, seed: of the run.
        network: the options that choose the network of a perceptual loss.
        n_features: of that network.
    """
    perceptual = ROWS[row].perceptual
    return {
        "seed": seed,
        "precision": scale.precision,
        **{f"data.scenes.{name}": getattr(scale, name) for name in ("width", "height", "train", "test")},
        "data.workers": scale.workers,
        "optim.ema_decay": 0.99,
        "log.metrics_every": min(10, scale.steps),
        "log.samples_every": scale.steps,
        "log.checkpoint_every": max(1, scale.steps // scale.checkpoints),
        "log.keep": 1,
        "log.val_images": 8,
        "log.style_images": 32,
        **ROWS[row].options(scale),
        **({} if perceptual is None else {**network, **perceptual(n_features)}),
        **ROWS[row].ablation,
    }


def typed(options: Options) -> list[str]:
    """Options as they are typed on a command line."""
    arguments = []
    for place, value in options.items():
        path, dot, name = place.replace("_", "-").rpartition(".")
        if isinstance(value, bool):
            arguments.append(f"--{path}{dot}{'' if value else 'no-'}{name}")
        elif isinstance(value, tuple):
            arguments += [f"--{path}{dot}{name}", *map(str, value)]
        else:
            arguments += [f"--{path}{dot}{name}", str(value)]
    return arguments


@dataclass(frozen=True)
class Table:
    """Rows that are compared: what the paper says about them, and what is tested here."""

    title: str
    rows: tuple[str, ...]
    paper: str
    """What the paper says, in a sentence or two."""
    tested: tuple[str, ...] = ()
    """Rows in the order that is tested here, best first; empty if no order is tested."""
    metrics: tuple[str, ...] = ("miou",)
    """By which the order is tested. Higher is better in each of them."""
    claims: tuple[tuple[str, str], ...] = ()
    """Pairs of tested rows of which the paper puts the first above the second; we test the other pairs additionally."""
    favoured: str = ""
    """The rows that a perceptual network like the scorer favours over others of the table; empty if there are none."""


TABLES = (
    Table(
        "pix2pix, CRN and pix2pixHD",
        ("pix2pix", "crn", "pix2pixhd"),
        "In the paper pix2pixHD is far ahead in mean IoU and in people's preference. We test additionally whether CRN "
        "is above pix2pix. As in their papers, pix2pix and CRN see no instance boundaries. CRN has no discriminator.",
        tested=("pix2pixhd", "crn", "pix2pix"),
        claims=(("pix2pixhd", "crn"), ("pix2pixhd", "pix2pix")),
        favoured="CRN, which has no other loss, and pix2pixHD",
    ),
    Table(
        "Losses",
        ("gan", "gan-fm", "pix2pixhd"),
        "In the paper people preferred images of the full loss to images without the perceptual loss and to those "
        "of the GAN loss alone. The paper does not give their mean IoU.",
        tested=("pix2pixhd", "gan-fm", "gan"),
        claims=(("pix2pixhd", "gan-fm"), ("pix2pixhd", "gan")),
        favoured="here pix2pixHD",
    ),
    Table(
        "Discriminators",
        ("one-d", "pix2pixhd"),
        "In the paper three discriminators have a higher mean IoU than one.",
        tested=("pix2pixhd", "one-d"),
        claims=(("pix2pixhd", "one-d"),),
    ),
    Table(
        "Generator",
        ("g1", "pix2pixhd"),
        "The paper adds the enhancer to reach 2048x1024 and gives no score for G1 alone. We test whether the enhancer "
        "helps at this size, where G1 alone trains at the full resolution all the time.",
        tested=("pix2pixhd", "g1"),
    ),
    Table(
        "Instance boundaries",
        ("no-instances", "pix2pixhd"),
        "In the paper people preferred images made with instance boundaries. The paper does not give their mean IoU, "
        "and the scorer does not know objects. We test instance edges as well: 0 if nothing shows where one of two "
        "touching objects of a class ends, and 1 if their edge is as strong as in photos.",
        tested=("pix2pixhd", "no-instances"),
        metrics=("miou", "instance_edges"),
        claims=(("pix2pixhd", "no-instances"),),
    ),
    Table(
        "Features",
        ("pix2pixhd", "features"),
        "The paper adds features for control and variety and claims no better score, so no order is tested. With "
        "features each object has the mean style of its class, as `hdgan.load` gives it without a photo.",
    ),
)
