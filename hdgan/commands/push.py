"""`hdgan push`: a model with its card on the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro

from hdgan.checkpoints import MODEL_FILE, STYLES_FILE
from hdgan.commands.push_content import CARD, ContentOptions
from hdgan.commands.push_samples import SAMPLES, SampleOptions
from hdgan.errors import ConfigError
from hdgan.files import atomic_folder
from hdgan.hub import PREFIX, Destination, open_destination, require_repository
from hdgan.inference.model_card import CardFacts


def push(
    run: Annotated[Path, tyro.conf.Positional],
    repository: Annotated[str, tyro.conf.Positional],
    /,
    content: Annotated[ContentOptions, tyro.conf.arg(name="")],
    samples: Annotated[SampleOptions, tyro.conf.arg(name="")],
    private: bool = False,
    branch: str | None = None,
    message: str | None = None,
    overwrite: bool = False,
    out: Path | None = None,
) -> int:
    """Upload a model to the Hugging Face Hub, where hf:OWNER/NAME stands for it in all commands and in hdgan.load.

    Uploads the weights without the discriminator, the clusters of styles, the configuration without absolute paths, and
    a model card, in one commit. What it uploads is printed first. Photos and label maps stay here unless you ask for
    crops or samples. A push to a repository that holds a model of hdgan replaces this model and its card; the old ones
    stay in the history.

    You need an account: log in with `hf auth login`, or set HF_TOKEN.

    Args:
        run: run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or
            hf:OWNER/NAME, a model on the Hugging Face Hub.
        repository: OWNER/NAME on the hub, which is created if it does not exist.
        private: create a private repository.
        branch: branch for the commit, created if it does not exist. The default is main.
        message: of the commit.
        overwrite: push also into a repository that holds something else, whose other files stay.
        out: write the files into this new folder instead, and upload nothing.
    """
    content.check()
    destination = None
    if out is None:
        destination = open_destination(repository, MODEL_FILE, branch=branch, private=private, overwrite=overwrite)
    else:
        uploading = {"private": private, "branch": branch, "message": message, "overwrite": overwrite}
        _check_dry_run(repository, out, uploading)
    with _new_folder(out) as folder:
        facts = content.write(run, repository, samples, folder)
        _announce(folder, destination, facts, crops=content.crops)
        if destination is not None:
            step = facts.metadata.get("step")
            text = message or ("Push a model of hdgan" if step is None else f"Push the model of step {step}")
            pushed = destination.push(folder, text, (STYLES_FILE, f"{SAMPLES}/"))
            print(f"{pushed.url}\ncommit {pushed.commit}: {PREFIX}{repository}@{pushed.commit}")
    return 0


def _check_dry_run(repository: str, out: Path, uploading: Mapping[str, Any]) -> None:
    """Refuse what --out cannot do."""
    require_repository(repository)
    for name, value in uploading.items():
        if value:
            raise ConfigError(f"--{name} has no effect with --out, which uploads nothing: leave one of them out")
    if os.path.lexists(out):
        raise ConfigError(f"--out {out} already exists: choose another, or delete it")


@contextmanager
def _new_folder(out: Path | None) -> Iterator[Path]:
    """The folder of --out, which appears when it is complete, or a temporary one."""
    if out is not None:
        with atomic_folder(out) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="hdgan-push-") as scratch:
            yield Path(scratch)


def _announce(folder: Path, destination: Destination | None, facts: CardFacts, *, crops: bool) -> None:
    """Print what the repository gets, before it gets it."""
    if destination is not None:
        kind = f"{'' if destination.exists else 'new '}{'private' if destination.private else 'public'}"
        print(f"uploading to {destination.model}, a {kind} repository:")
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"  {file.relative_to(folder)}  {file.stat().st_size:,} bytes")
    if facts.clusters:
        print("the styles have " + ("crops of training photos" if crops else "no crops of photos; --crops adds them"))
    if facts.samples:
        print("the samples show the inputs beside the images generated from them")
    if facts.license is None and (folder / CARD).exists():
        print("the card names no licence; --license adds one")
