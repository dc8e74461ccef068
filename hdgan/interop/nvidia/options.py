"""NVIDIA's `opt.txt` as a `Pix2PixHDConfig` and back, and what the input channels of its networks mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hdgan.config.options import option
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHDConfig
from hdgan.files.json import read_bytes
from hdgan.interop.files import notes_on_spectral_norm
from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from hdgan.models.generator import Enhancer, Trunk

_GROWTH = 16
"""The table of options takes at most about this many times as many bytes as the file."""
_NUMBER = re.compile("[0-9]{1,9}")


class NvidiaOptions:
    """NVIDIA's `opt.txt`: a line `name: value` for each option. An absent option has NVIDIA's default."""

    DEFAULTS: Mapping[str, int | bool | str] = {
        "norm": "instance",
        "label_nc": 35,
        "input_nc": 3,
        "output_nc": 3,
        "no_instance": False,
        "instance_feat": False,
        "label_feat": False,
        "load_features": False,
        "feat_num": 3,
        "netG": "global",
        "ngf": 64,
        "n_downsample_global": 4,
        "n_blocks_global": 9,
        "n_local_enhancers": 1,
        "n_blocks_local": 3,
        "n_downsample_E": 4,
        "nef": 16,
        "num_D": 2,
        "n_layers_D": 3,
        "ndf": 64,
        "no_ganFeat_loss": False,
        "no_lsgan": False,
    }

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            CheckpointError: it is missing, no ordinary file, or too large.
        """
        content = read_bytes(path, _GROWTH, "a file of options")
        lines = content.decode("utf-8", errors="replace").splitlines()
        self.path = path
        self.values = dict(line.split(": ", 1) for line in lines if ": " in line)

    def integer(self, name: str) -> int:
        """The value of an option that is a whole number.

        Raises:
            CheckpointError: the file has something else there.
        """
        text = self.values.get(name, str(self.DEFAULTS[name]))
        if not _NUMBER.fullmatch(text.strip()):
            raise CheckpointError(
                f"{self.path}: {name} is {text!r:.60}, not a whole number of at most 9 digits; correct the line"
            )
        return int(text)

    def flag(self, name: str) -> bool:
        """The value of an option that is a switch.

        Raises:
            CheckpointError: the file has something other than True or False there.
        """
        text = self.values.get(name, str(self.DEFAULTS[name])).strip()
        if text not in ("True", "False"):
            raise CheckpointError(f"{self.path}: {name} is {text!r:.60}, not True or False; correct the line")
        return text == "True"


@dataclass
class Networks:
    """The networks that a folder holds."""

    generator: GlobalGenerator | LocalEnhancer
    discriminator: MultiscaleDiscriminator | None
    encoder: FeatureEncoder | None


def model_config(
    networks: Networks,
    options: NvidiaOptions | None,
    labels: int | None,
    instances: bool | None,
    folder: Path,
    notes: list[str],
) -> Pix2PixHDConfig:
    """Derive the config of a model from its networks and, where the folder has one, its `opt.txt`.

    Args:
        networks: as loaded; their channels must match.
        options: of the run; without them the meaning of the input channels is inferred.
        labels: classes of the label maps, 0 for images; None uses what the folder says.
        instances: whether G sees a boundary map; None uses what the folder says.
        folder: for messages.
        notes: what was found and assumed is added here, one sentence each.

    Raises:
        CheckpointError: the networks do not match each other, or `opt.txt`, labels or instances do not fit them.
    """
    g, d, e = networks.generator, networks.discriminator, networks.encoder
    in_channels, image_channels = _trunk(g).stem.in_channels, g.head.out_channels
    condition = _condition_channels(networks, options, labels, instances)
    features = in_channels - condition
    _check_channels(networks, condition, features, image_channels, folder)
    n_labels, input_channels, instances = _meaning(condition, options, labels, instances, folder)
    notes.append(
        f"G's {in_channels} input channels: {n_labels or input_channels} {'labels' if n_labels else 'of an image'}, "
        f"{'a' if instances else 'no'} boundary map, {features} features"
    )
    reduction = int(options is not None and options.flag("load_features"))
    if options is not None and options.flag("label_feat") and not options.flag("instance_feat"):
        notes.append("it was trained with --label_feat: when encoding, give the label map instead of the instance ids")
    if d is not None and options is not None and options.flag("no_lsgan"):
        notes.append(
            "it was trained with --no_lsgan: NVIDIA's D ends in a sigmoid, this one returns the logits before it"
        )
    try:
        return Pix2PixHDConfig(
            n_labels=n_labels,
            input_channels=input_channels,
            image_channels=image_channels,
            instances=instances,
            feature_channels=features,
            generator=_generator_config(g),
            discriminator=_discriminator_config(d, options),
            encoder=_encoder_config(e, options, reduction),
        )
    except ConfigError as error:
        raise CheckpointError(f"{folder} contains a model that hdgan cannot build: {error}") from error


def _condition_channels(
    networks: Networks, options: NvidiaOptions | None, labels: int | None, instances: bool | None
) -> int:
    """How many channels of G's input are the condition; the others are features. Arguments as of `model_config`."""
    in_channels, image_channels = _trunk(networks.generator).stem.in_channels, networks.generator.head.out_channels
    if options is not None:
        features = options.flag("instance_feat") or options.flag("label_feat")
        return in_channels - (options.integer("feat_num") if features else 0)
    if networks.encoder is not None:
        return in_channels - networks.encoder.head.out_channels
    if networks.discriminator is not None:
        return _convs(networks.discriminator)[0].in_channels - image_channels
    if labels is not None:
        return (labels or 3) + int(instances is not False)
    return in_channels


def _trunk(g: GlobalGenerator | LocalEnhancer) -> Trunk:
    return g.coarse if isinstance(g, LocalEnhancer) else g.trunk


def _check_channels(networks: Networks, condition: int, features: int, image_channels: int, folder: Path) -> None:
    """Require that G, D and E see the same condition, features and image."""
    d, e = networks.discriminator, networks.encoder
    facts = [f"G {condition + features} in {image_channels} out"]
    fits = condition >= 1 and features >= 0
    if d is not None:
        seen = _convs(d)[0].in_channels
        fits &= seen == condition + image_channels
        facts.append(f"D {seen} in")
    if e is not None:
        fits &= (e.trunk.stem.in_channels, e.head.out_channels) == (image_channels, features)
        facts.append(f"E {e.trunk.stem.in_channels} in {e.head.out_channels} out")
    if not fits:
        raise CheckpointError(
            f"{folder}: the channels of its networks do not match ({', '.join(facts)}, expected {features} "
            "features); take all files and opt.txt from one run"
        )


def _meaning(
    condition: int, options: NvidiaOptions | None, labels: int | None, instances: bool | None, folder: Path
) -> tuple[int, int, bool]:
    """What the channels of the condition are: labels (0 for an image), channels of an image, a boundary map."""
    if instances is None:
        if options is not None:
            instances = not options.flag("no_instance")
        else:
            instances = condition - labels == 1 if labels else condition != 3
    rest = condition - int(instances)
    if labels is None:
        labels = options.integer("label_nc") if options is not None else (0 if rest == 3 else rest)
    input_channels = rest if labels == 0 else (options.integer("input_nc") if options is not None else 3)
    if rest < 1 or labels not in (0, rest):
        raise CheckpointError(
            f"{folder}: G's condition has {condition} channels, which is not {labels} labels "
            f"{'and a boundary map' if instances else 'alone'}; give {option('labels')} N and {option('instances')} "
            "True or False"
        )
    return labels, input_channels, instances


def _generator_config(g: GlobalGenerator | LocalEnhancer) -> GeneratorConfig:
    trunk = _trunk(g)
    enhancers: list[Enhancer] = list(g.enhancers) if isinstance(g, LocalEnhancer) else []  # type: ignore[arg-type]
    return GeneratorConfig(
        ngf=trunk.stem.out_channels,
        n_downsample=len(trunk.downs),
        n_blocks=len(trunk.blocks),
        n_enhancers=len(enhancers),
        n_blocks_local=len(enhancers[0].blocks) if enhancers else GeneratorConfig.n_blocks_local,
    )


def _convs(d: MultiscaleDiscriminator) -> list[nn.Conv2d]:
    return list(d.scales[0].convs)  # type: ignore[arg-type]


def _discriminator_config(d: MultiscaleDiscriminator | None, options: NvidiaOptions | None) -> DiscriminatorConfig:
    if d is not None:
        convs = _convs(d)
        return DiscriminatorConfig(convs[0].out_channels, len(convs) - 2, len(d.scales), d.intermediate_features)
    if options is None:
        return DiscriminatorConfig()
    return DiscriminatorConfig(
        options.integer("ndf"),
        options.integer("n_layers_D"),
        options.integer("num_D"),
        not options.flag("no_ganFeat_loss"),
    )


def _encoder_config(e: FeatureEncoder | None, options: NvidiaOptions | None, reduction: int) -> EncoderConfig:
    if e is not None:
        return EncoderConfig(e.trunk.stem.out_channels, len(e.trunk.downs), reduction)
    if options is None:
        return EncoderConfig()
    return EncoderConfig(options.integer("nef"), options.integer("n_downsample_E"), reduction)


def options_of(config: Pix2PixHDConfig) -> dict[str, int | bool | str]:
    """The options with which NVIDIA's code builds the networks of `config`, by their names in `opt.txt`."""
    g, d, e = config.generator, config.discriminator, config.encoder
    return {
        **NvidiaOptions.DEFAULTS,
        "label_nc": config.n_labels,
        "input_nc": config.input_channels,
        "output_nc": config.image_channels,
        "no_instance": not config.instances,
        "instance_feat": config.feature_channels > 0,
        "load_features": config.feature_channels > 0 and e.reduction > 0,
        "feat_num": config.feature_channels or NvidiaOptions.DEFAULTS["feat_num"],
        "netG": "local" if g.n_enhancers else "global",
        "ngf": g.ngf // 2**g.n_enhancers,
        "n_downsample_global": g.n_downsample,
        "n_blocks_global": g.n_blocks,
        "n_local_enhancers": g.n_enhancers or NvidiaOptions.DEFAULTS["n_local_enhancers"],
        "n_blocks_local": g.n_blocks_local,
        "n_downsample_E": e.n_downsample,
        "nef": e.nef,
        "num_D": d.n_scales,
        "n_layers_D": d.n_layers,
        "ndf": d.ndf,
        "no_ganFeat_loss": not d.intermediate_features,
    }


_TRAINING_ONLY = ("num_D", "n_layers_D", "ndf", "no_ganFeat_loss", "load_features")


def notes_for_nvidia(config: Pix2PixHDConfig, values: Mapping[str, int | bool | str]) -> list[str]:
    """What to know before NVIDIA's code runs a model: the options for its test.py, and the differences.

    Args:
        config: of the model.
        values: from `options_of`.
    """
    flags = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in sorted(values.items())
        if value != NvidiaOptions.DEFAULTS[name] and name not in _TRAINING_ONLY
    ]
    notes = ["options for NVIDIA's test.py: " + (" ".join(flags) or "none, all are its defaults")]
    if config.dontcare is not None:
        notes.append(f"NVIDIA's code has no dontcare label: map {config.dontcare} to a class of its own")
    if config.instance_divisor != 1000:
        notes.append(
            "NVIDIA's code takes id // 1000 as the class of an id, but this model takes id // "
            f"{config.instance_divisor}"
        )
    if config.image_depth != "uint8":
        notes.append("NVIDIA's code writes images of 8 bits, and so does a model that is converted back")
    if config.feature_channels and config.encoder.reduction:
        times = config.encoder.reduction
        notes.append(f"E sees the photo halved {times} times here, but at full size in NVIDIA's test.py")
    return [*notes, *notes_on_spectral_norm(config)]
