"""Download of a model from the hub into the cache of huggingface_hub, which all programs share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from hdgan.errors import CheckpointError
from hdgan.hub.names import HubModel, parse_hub_name
from hdgan.hub.problems import HubUnreachable, explained, library
from hdgan.progress import print_lines

_SHOWN = 8
"""Files that a message lists at most."""


def fetch_model(text: str, model_file: str, others: Sequence[str] = ()) -> Path:
    """Make sure that a model of the hub is in the cache, and return its folder there.

    Only files that are not in the cache are downloaded. A download that was interrupted is continued. The model file
    comes last, so a folder that has it is complete. Without a connection the cache is used as it is. Which commit is
    used is printed.

    Args:
        text: hf:OWNER/NAME[@REVISION].
        model_file: the file that the repository needs to have, a safetensors file of hdgan.
        others: files that are downloaded as well if the repository has them.

    Raises:
        CheckpointError: there is no such model, it may not be read, it is not one of hdgan, or there is neither a
            connection nor a copy in the cache.
        ConfigError: huggingface_hub is not installed.
    """
    model = parse_hub_name(text)
    console = Console(stderr=True)
    try:
        with explained(model, CheckpointError):
            folder = _download(model, model_file, others)
    except HubUnreachable as problem:
        cached = _cached(model, model_file)
        if cached is None:
            raise CheckpointError(
                f"{model} is not in the cache, and {problem}: repeat this with a connection to the hub, or give a "
                "model on this machine"
            ) from problem
        print_lines(console, f"{model} is taken from the cache, since {problem}: commit {cached.name}")
        return cached
    pin = HubModel(model.repository, folder.name)
    print_lines(console, f"{model}: commit {folder.name}" + ("" if pin == model else f"; {pin} keeps to it"))
    return folder


def _download(model: HubModel, model_file: str, others: Sequence[str]) -> Path:
    """The folder of the commit that the revision is now."""
    hub = library()
    info = hub.HfApi().model_info(model.repository, revision=model.revision)
    there = [sibling.rfilename for sibling in info.siblings or ()]
    commit = HubModel(model.repository, info.sha)
    if model_file not in there:
        raise CheckpointError(f"{model} is not a model of hdgan, since it has no {model_file}: it has {listed(there)}")
    if _cached(commit, model_file) is None and not is_of_hdgan(commit, model_file):
        raise CheckpointError(
            f"{model} is not a model of hdgan: its {model_file} was written by other code; give a model that "
            "`hdgan push` has uploaded"
        )
    first, *rest = [name for name in others if name in there] + [model_file]
    # The first download notes in the cache which commit the revision is; the others keep to it.
    folder = Path(hub.hf_hub_download(model.repository, first, revision=model.revision)).parent
    for name in rest:
        hub.hf_hub_download(model.repository, name, revision=folder.name)
    return folder


def _cached(model: HubModel, model_file: str) -> Path | None:
    """The folder of a model in the cache; None if its file is not there."""
    found = library().try_to_load_from_cache(model.repository, model_file, revision=model.revision)
    return Path(found).parent if isinstance(found, str) else None


def is_of_hdgan(model: HubModel, model_file: str) -> bool:
    """Whether a safetensors file on the hub was written by hdgan. Only the beginning of the file is read."""
    hub = library()
    try:
        header = hub.HfApi().parse_safetensors_file_metadata(model.repository, model_file, revision=model.revision)
    except hub.errors.SafetensorsParsingError:
        return False
    return "hdgan" in header.metadata


def listed(names: Collection[str]) -> str:
    """Names of files for a message."""
    shown = sorted(name for name in names if name != ".gitattributes")
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) + more) or "no files"
