"""Checkpoint folders of NVIDIA/pix2pixHD as a checkpoint of hdgan, and back."""

from __future__ import annotations

from pathlib import Path

import torch

from hdgan.checkpoints import require_new_checkpoint
from hdgan.config.options import option
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_inputs import StoredInputs, inputs_entry
from hdgan.interop.files import network_file, require_no_networks, write_networks
from hdgan.interop.nvidia.networks import load_network, to_state_dict
from hdgan.interop.nvidia.options import Networks, NvidiaOptions, model_config, notes_for_nvidia, options_of
from hdgan.weights import read_weights

_LETTERS = {"generator": "G", "discriminator": "D", "encoder": "E"}


def convert_from_nvidia(
    folder: Path,
    out: Path,
    epoch: str = "latest",
    *,
    labels: int | None = None,
    instances: bool | None = None,
    encoder: Path | None = None,
) -> list[str]:
    """Write the networks of a folder of NVIDIA's code as one checkpoint of hdgan.

    The architecture follows from the weights. `opt.txt` says what the input channels mean (labels or an image, a
    boundary map, features). Without it, the number of feature channels is that of E's output or, without E, the number
    of G's channels that D does not see. Of the others, 3 are a colour image, 4 an image and a boundary map, any other
    number labels and a boundary map.

    Args:
        folder: holds `<epoch>_net_G.pth` and, if there are any, `<epoch>_net_D.pth`, `<epoch>_net_E.pth`, `opt.txt`.
        out: checkpoint to write, *.safetensors, which must not exist.
        epoch: the first part of the files' names.
        labels: classes of the label maps, 0 for images; None uses what the folder says.
        instances: whether G sees a boundary map; None uses what the folder says.
        encoder: a `*_net_E.pth` from elsewhere. NVIDIA's 1024p recipe with features keeps E in the 512p folder.

    Returns:
        What was found and assumed, one sentence each.

    Raises:
        CheckpointError: a file that is missing, damaged, or does not fit the others.
        ConfigError: `out` exists or has another ending.
    """
    require_new_checkpoint(out)
    path = folder / "opt.txt"
    options = NvidiaOptions(path) if path.exists() else None
    if options and options.values.get("norm", "instance").strip() != "instance":
        raise CheckpointError(f"{path}: norm is {options.values['norm']:.60}; hdgan has only instance norms")
    networks = _read_networks(folder, epoch, encoder)
    notes = [] if options else [f"{folder} has no opt.txt: the meaning of the input channels was inferred"]
    config = model_config(networks, options, labels, instances, folder, notes)
    with torch.device("meta"):
        model = Pix2PixHD(config)
    for name in _LETTERS:
        network = getattr(networks, name)
        if network is None and getattr(model, name) is not None:
            notes.append(f"no {name} was found: the new checkpoint has none, and training from it starts a new one")
        setattr(model, name, network)
    inputs = inputs_entry(None if config.n_labels else StoredInputs("uint8"))
    save_model(out, model, extra={"source": "NVIDIA/pix2pixHD", "epoch": epoch, **inputs}, new=True)
    return notes


def convert_to_nvidia(path: Path, folder: Path, epoch: str = "latest", *, ema: bool = True) -> list[str]:
    """Write a checkpoint of hdgan as the files that NVIDIA's code loads, and an `opt.txt` with the options for that.

    Nothing is overwritten. Epochs of one architecture may share a folder, and with it `opt.txt`.

    Args:
        path: checkpoint of hdgan.
        folder: to write into, usually `checkpoints/<name>` of NVIDIA's code; created if absent.
        epoch: the first part of the files' names.
        ema: use the averaged weights if there are any.

    Returns:
        The options for NVIDIA's test.py, and notes about what it cannot know.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or NVIDIA's code has no such network.
        ConfigError: the folder has networks of this epoch, or an `opt.txt` with other options.
        HdganError: the folder cannot be written.
    """
    require_no_networks(folder, epoch)
    model, _ = load_model(path, ema=ema)
    if not isinstance(model, Pix2PixHD):
        raise CheckpointError(
            f"{path} is a model of the family {model.config.family}: NVIDIA's code has only pix2pixHD"
        )
    _require_counterparts(model.config, path)
    states = {
        letter: to_state_dict(network)
        for name, letter in _LETTERS.items()
        if (network := getattr(model, name)) is not None
    }
    values = options_of(model.config)
    lines = [f"{name}: {value}" for name, value in sorted(values.items())]
    header, footer = "------------ Options -------------", "-------------- End ----------------"
    file, content = folder / "opt.txt", "\n".join([header, *lines, footer, ""]).encode()
    if file.exists() and not (file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content):
        raise ConfigError(f"{file} already exists, from another network: choose another {option('out')}, or delete it")
    write_networks(folder, epoch, states, {file.name: content})
    return notes_for_nvidia(model.config, values)


def _require_counterparts(config: Pix2PixHDConfig, path: Path) -> None:
    """Refuse a model with layers that NVIDIA's code does not have, and name the options that avoid them."""
    parts: dict[str, GeneratorConfig | EncoderConfig] = {"generator": config.generator}
    if config.feature_channels:
        parts["encoder"] = config.encoder
    instead = [
        f"{option(f'model.{name}.{field}')} {expected}"
        for name, part in parts.items()
        for field, expected in {"upsample": "transposed", "pad_mode": "reflect", "noise": 0}.items()
        if getattr(part, field, expected) != expected
    ]
    if instead:
        raise CheckpointError(
            f"{path} has layers that NVIDIA's code does not: it upsamples by transposed convolutions, pads by "
            f"reflection and adds no noise; train a model for it with {' '.join(instead)}"
        )


def _read_networks(folder: Path, epoch: str, encoder: Path | None) -> Networks:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder that contains {epoch}_net_G.pth")
    g, d, e = (network_file(folder, epoch, letter) for letter in "GDE")
    if not g.is_file():
        epochs = sorted(file.name.removesuffix("_net_G.pth") for file in folder.glob("*_net_G.pth"))
        choice = f"choose {option('epoch')} from: {', '.join(epochs)}"
        raise CheckpointError(f"{g} does not exist; {choice if epochs else 'give a folder that contains such a file'}")
    has_encoder = encoder is not None or e.is_file()
    e = encoder or e
    return Networks(
        load_network(read_weights(g), where=str(g)),
        load_network(read_weights(d), "discriminator", where=str(d)) if d.is_file() else None,
        load_network(read_weights(e), "encoder", where=str(e)) if has_encoder else None,
    )
