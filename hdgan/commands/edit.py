"""`hdgan edit`: the editor as a command."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from hdgan.config.bounds import Port, Positive
from hdgan.config.serialization import check_value
from hdgan.editor.studio import MAX_PIXELS, open_studio
from hdgan.errors import ConfigError
from hdgan.files import require_no_file


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
    precision: Literal["float32", "bfloat16"] = "float32",
    ema: bool = True,
) -> int:
    """Edit label maps, objects and styles in a web page, with the picture beside them.

    Prints the page's address. Whoever can reach it can use the editor and save into its folder.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        host: address to listen on; 127.0.0.1 can be reached from this machine alone, 0.0.0.0 from everywhere.
        port: to listen on; left out, the first that is free from 7860 on.
        browser: open the page in a browser.
        out: folder for what is saved; left out, edits in the folder of the run, or beside a file that is in none.
        root: dataset to take pictures from, if it is not where the run had it.
        classes: text file with the name of one class a line.
        max_pixels: of a picture that is opened.
        checkpoint: of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        precision: bfloat16 runs the networks under autocast.
        ema: use the averaged weights.
    """
    if find_spec("gradio") is None:
        raise ConfigError('the editor needs Gradio: in the checkout of hdgan, `pip install -e ".[editor]"` installs it')
    check_value(Port | None, port, "port")
    check_value(Positive, max_pixels, "max_pixels")
    if out is not None:
        require_no_file(out, "out")
    from hdgan.editor.app import serve

    studio = open_studio(
        run,
        checkpoint=checkpoint,
        root=root,
        out=out,
        classes=classes,
        max_pixels=max_pixels,
        device=device,
        precision=precision,
        ema=ema,
        console=Console(stderr=True),
    )
    serve(studio, host, port, browser)
    return 0
