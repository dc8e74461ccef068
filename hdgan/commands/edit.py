"""`hdgan edit`: the editor as a command."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Interval
from rich.console import Console

from hdgan.checkpoints import find_checkpoint
from hdgan.config.bounds import Port, Positive, Precision
from hdgan.config.serialization import check_value
from hdgan.errors import ConfigError, DataError
from hdgan.files import require_file, require_no_file
from hdgan.files.remote import is_remote, located

MAX_PIXELS = 2048 * 1024 * 2
_GiB = Annotated[float, Interval(ge=0, le=2**20)]


def edit(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
    out: Path | None = None,
    root: Path | None = None,
    classes: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    checkpoint: str = "latest",
    device: str = "auto",
    precision: Precision = "float32",
    ema: bool = True,
    preview_gib: float = 4,
) -> int:
    """Edit label maps, objects and styles in a web page, next to the generated image.

    Prints the address of the page. Everyone who can reach it can use the editor and save into its folder.

    Args:
        run: run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or
            hf:OWNER/NAME, a model on the Hugging Face Hub.
        host: address to listen on. Only this machine can reach 127.0.0.1; other machines can reach 0.0.0.0.
        port: port to listen on. The default is the first free one from 7860.
        browser: open the page in a browser.
        out: folder for saved documents. The default is edits in the run folder, or next to a file that is not in a run,
            or in the working directory demo.edits for the model that comes with hdgan and OWNER--NAME.edits for a model
            of the hub.
        root: dataset with the images to start from, if it has moved since training.
        classes: names of the classes instead of those of the dataset or model: a classes.csv with names and colours, or
            a text file with one name per line.
        max_pixels: largest image that can be opened, in pixels.
        checkpoint: which one of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        precision: bfloat16 and float16 run the networks under autocast; float16 is more exact, and slow on most CPUs.
        ema: use the averaged weights.
        preview_gib: memory for previews in GiB. On a CPU, a small edit shows the changed part of the image at once and
            then the whole, if the features of two images fit into this; 0 turns it off.
    """
    if find_spec("gradio") is None:
        raise ConfigError(
            'the editor needs Gradio: install it with `pip install -e ".[editor]"` in the checkout of hdgan'
        )
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host:.300} is not an address to listen on: give 127.0.0.1 or 0.0.0.0") from error
    check_value(Port | None, port, "port")
    check_value(Positive, max_pixels, "max_pixels")
    check_value(_GiB, preview_gib, "preview_gib")
    if out is not None:
        require_no_file(out)
    root = None if root is None else located(root, "--root")
    if root is not None and not is_remote(root) and not root.is_dir():
        raise DataError(f"--root {root} is not a folder: give the folder of a dataset")
    if classes is not None:
        require_file(classes, DataError)
    file = find_checkpoint(run, checkpoint)

    # These imports take seconds, so they come after everything that can be refused at once.
    from hdgan.editor.context import open_context
    from hdgan.inference import load

    pipeline = load(file, device=device, precision=precision, ema=ema)
    console = Console(stderr=True)
    context = open_context(
        pipeline, max_pixels, root=root, out=out, classes=classes, preview_gib=preview_gib, console=console
    )

    from hdgan.editor.web.app import serve

    serve(context, host, port, browser)
    return 0
