"""The web page of the editor: Gradio carries events to the session of a tab and its view back."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from starlette.middleware import Middleware

from hdgan.editor.files import saved_names
from hdgan.editor.guard import Guard
from hdgan.editor.page import Page, legend_entries
from hdgan.editor.session import Session
from hdgan.editor.studio import MAX_PIXELS, Studio
from hdgan.errors import HdganError

_HERE = Path(__file__).parent
_FONTS = ("system-ui", "sans-serif")  # no fonts from the network
_BYTES_PER_PIXEL = 8  # of an upload: no map and no photo has more
_SMALLEST_LIMIT = 1 << 20  # bytes; styles do not grow with the pixels
_UPLOADS_KEPT = (3600, 3600)  # seconds between sweeps, and of age

Update = dict[str, Any]


def build(studio: Studio) -> gr.Blocks:
    """Make the page.

    Args:
        studio: what its sessions share.
    """
    stems = [] if studio.samples is None else [(pair.stem, k) for k, pair in enumerate(studio.samples.pairs)]
    with gr.Blocks(title="hdgan edit", analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS_KEPT) as blocks:
        page = gr.State(None)
        with gr.Row():
            sample = gr.Dropdown(
                stems, value=0 if stems else None, label="Start from a held-out picture", elem_id="sample"
            )
            saved = gr.Dropdown([], value=None, label="Open what was saved", elem_id="saved")
            name = gr.Textbox("picture", label="Save as", elem_id="name", max_lines=1)
            save = gr.Button("Save", elem_id="save", scale=0, min_width=90)
        stage = gr.HTML(
            {},
            html_template=_read("stage.html"),
            js_on_load=_read("stage.js"),
            apply_default_css=False,
            elem_id="stage",
        )
        with gr.Accordion("Open own maps", open=False), gr.Row():
            label = gr.File(label="Label map", elem_id="label-file", height=120)
            instance = gr.File(label="Instance map", elem_id="instance-file", height=120)
            look = gr.File(label="Optional: photo or styles (.json)", elem_id="look-file", height=120)
            open_own = gr.Button("Open", elem_id="open-files", scale=0, min_width=90)

        def edit(page: Page | None, event: gr.EventData) -> Update:
            wanted = event._data
            return _answer(page, lambda session: session.act(wanted["action"], wanted["arguments"]), wanted["serial"])

        def open_files(page: Page | None, label: str | None, instance: str | None, look: str | None) -> Update:
            return _answer(page, lambda session: _open_uploads(session, label, instance, look))

        def save_as(page: Page | None, name: str) -> tuple[Update, gr.Dropdown]:
            view = _answer(page, lambda session: f"Saved in {session.save(name)}")
            return view, gr.Dropdown(saved_names(studio.folder), value=None)

        # One at a time: there is one model. `multiple` queues what is done while a picture is being made.
        options: dict[str, Any] = {
            "trigger_mode": "multiple",
            "concurrency_id": "session",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        stage.edit(edit, page, stage, show_progress="hidden", **options)  # the stage shows its own
        options |= {"show_progress": "minimal", "show_progress_on": stage}
        sample.input(
            lambda page, k: _answer(page, lambda session: session.open_sample(k)), [page, sample], stage, **options
        )
        saved.input(
            lambda page, name: _answer(page, lambda session: session.open_saved(name)), [page, saved], stage, **options
        )
        open_own.click(open_files, [page, label, instance, look], stage, **options)
        gr.on([save.click, name.submit], save_as, [page, name], [stage, saved], **options)
        blocks.load(lambda: _begin(studio), None, [page, stage, saved], **options)
    return blocks


def serve(studio: Studio, host: str, port: int | None, open_browser: bool) -> None:
    """Show the page until Ctrl-C.

    Args:
        studio: what its sessions share.
        host: address to listen on.
        port: of it; None takes the first free one from 7860.
        open_browser: open the page in the user's browser.

    Raises:
        HdganError: the port is taken.
    """
    blocks = build(studio)
    url = launch(blocks, host, port, open_browser, studio.max_pixels)
    print(f"{url} (Ctrl-C ends the editor)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        blocks.close(verbose=False)


def launch(
    blocks: gr.Blocks,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> str:
    """Start the server in the background and return the page's address.

    Args:
        blocks: the page.
        host, port, open_browser: as in `serve`.
        max_pixels: of a picture; limits what can be uploaded.

    Raises:
        HdganError: the port is taken, or a proxy stands before this machine.
    """
    try:
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=max(max_pixels * _BYTES_PER_PIXEL, _SMALLEST_LIMIT),
            app_kwargs={"middleware": [Middleware(Guard, host=host)]},
            theme=gr.themes.Default(font=_FONTS, font_mono=("monospace",)),
            css=_read("stage.css"),
        )
    except OSError as error:
        raise HdganError(
            f"cannot listen on {host}, port {port or '7860 to 7959'} ({error}): give another --port"
        ) from error
    except Exception as error:
        # Gradio asks its own server whether it is there, and has no error of its own for a proxy that answers instead.
        if "localhost" not in str(error) and not isinstance(error, httpx.TransportError):
            raise
        blocks.close(verbose=False)
        raise HdganError(
            f"the page cannot be reached from this machine ({error}): if a proxy is set, set "
            "NO_PROXY=127.0.0.1,localhost as well"
        ) from error
    return url


def _begin(studio: Studio) -> tuple[Page, Update, gr.Dropdown]:
    """A session for a tab that has just been opened: it starts with the first sample."""
    page = Page(Session(studio))
    view = _answer(page, lambda session: session.open_sample(0)) if studio.samples else page.view()
    return page, view | {"legend": legend_entries(studio)}, gr.Dropdown(saved_names(studio.folder))


def _answer(page: Page | None, do: Callable[[Session], str | None], serial: int | None = None) -> Update:
    """Do something with a session and return what its page shows then; whatever goes wrong is said there.

    Args:
        page: of the tab; None if the server was started anew since.
        do: returns what it has done, where that cannot be seen.
        serial: number of the page's request.
    """
    if page is None:
        return {"message": "The editor was started anew: reload the page.", "serial": serial}
    began = time.monotonic()
    message = done = ""
    try:
        done = do(page.session) or ""
    except HdganError as error:
        message = str(error)
    except Exception as error:  # a bug, but the other tabs go on
        traceback.print_exc(file=sys.stderr)
        message = f"This is a bug of the editor ({type(error).__name__}: {error}); the terminal shows where."
    view = page.view(message, done)
    return view | {"serial": serial, "seconds": time.monotonic() - began}


def _open_uploads(session: Session, label: str | None, instance: str | None, look: str | None) -> None:
    if label is None:
        raise HdganError("no label map is given: choose a file")
    files = [None if file is None else Path(file) for file in (label, instance, look)]
    try:
        session.open_files(Path(label), *files[1:])
    except HdganError as error:
        # Users know their files by name, not where the server has put them.
        text = str(error)
        for file in filter(None, files):
            text = text.replace(str(file), file.name)
        raise HdganError(text) from error


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
