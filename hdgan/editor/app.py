"""The web page of the editor: Gradio carries events to the session of a tab and its view back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from starlette.middleware import Middleware

from hdgan.editor.files import saved_names
from hdgan.editor.guard import Guard
from hdgan.editor.session import UNNAMED, Session
from hdgan.editor.studio import MAX_PIXELS, Studio
from hdgan.editor.tabs import KEPT, Tabs
from hdgan.errors import HdganError

_HERE = Path(__file__).parent
_FONTS = ("system-ui", "sans-serif")  # no fonts from the network
_BYTES_PER_PIXEL = 8  # of an upload: no map and no photo has more
_SMALLEST_LIMIT = 1 << 20  # bytes; styles do not grow with the pixels
_UPLOADS_KEPT = (3600, 3600)  # seconds between sweeps, and of age

# A page that goes away leaves its tab's key behind (stage.js) for the one that is loaded next. It is taken at once, so
# that a copy of the tab finds none.
_TAKE_FORMER_KEY = """() => {
    const key = sessionStorage.getItem("hdgan-tab");
    sessionStorage.removeItem("hdgan-tab");
    return key;
}"""


def build(studio: Studio) -> gr.Blocks:
    """Make the page.

    Args:
        studio: what its sessions share.
    """
    events = _Events(Tabs(studio))
    stems = [] if studio.samples is None else [(pair.stem, k) for k, pair in enumerate(studio.samples.pairs)]
    with gr.Blocks(title="hdgan edit", analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS_KEPT) as blocks:
        former = gr.Textbox(visible=False)
        with gr.Row():
            sample = gr.Dropdown(
                stems, value=0 if stems else None, label="Start from a held-out picture", elem_id="sample"
            )
            saved = gr.Dropdown([], value=None, label="Open what was saved", elem_id="saved")
            name = gr.Textbox(UNNAMED, label="Save as", elem_id="name", max_lines=1)
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

        # One at a time: there is one model. `multiple` queues what is done while a picture is being made.
        options: dict[str, Any] = {
            "trigger_mode": "multiple",
            "concurrency_id": "session",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        shown = [stage, name]
        stage.edit(events.edit, None, shown, show_progress="hidden", **options)  # the stage shows its own
        options |= {"show_progress": "minimal", "show_progress_on": stage}
        # `select` is a choice, be it of the same entry again (by keyboard: see stage.js); `input` fires on blur too.
        sample.select(events.open_sample, sample, shown, **options)
        saved.select(events.open_saved, saved, shown, **options)
        open_own.click(events.open_files, [label, instance, look], shown, **options)
        gr.on([save.click, name.submit], events.save_as, name, [*shown, saved], **options)
        blocks.load(events.begin, former, [*shown, saved], js=_TAKE_FORMER_KEY, **options)
        # Other tabs save too. This waits for no picture.
        saved.focus(events.list_saved, None, saved, queue=False, show_progress="hidden", api_visibility="private")
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
            state_session_capacity=KEPT,  # Gradio keeps the last view of each
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


class _Events:
    """What happens in the page. Each returns a view for the stage and a name for its box, some the saved names too."""

    def __init__(self, tabs: Tabs) -> None:
        self.tabs = tabs

    def begin(self, former: str | None, request: gr.Request) -> Any:
        return *_parts(self.tabs.begin(_key(request), former)), self.list_saved()

    def edit(self, event: gr.EventData, request: gr.Request) -> Any:
        wanted = event._data
        return _parts(
            self.tabs.answer(
                _key(request), lambda session: session.act(wanted["action"], wanted["arguments"]), wanted["serial"]
            )
        )

    def open_sample(self, number: int | None, request: gr.Request) -> Any:
        return self._open(Session.open_sample, number, request)

    def open_saved(self, name: str | None, request: gr.Request) -> Any:
        return self._open(Session.open_saved, name, request)

    def open_files(self, label: str | None, instance: str | None, look: str | None, request: gr.Request) -> Any:
        return _parts(self.tabs.answer(_key(request), lambda session: _open_uploads(session, label, instance, look)))

    def save_as(self, name: str, request: gr.Request) -> Any:
        view = self.tabs.answer(_key(request), lambda session: f"Saved in {session.save(name)}")
        return *_parts(view), gr.Dropdown(saved_names(self.tabs.studio.folder), value=None)

    def list_saved(self) -> gr.Dropdown:
        return gr.Dropdown(saved_names(self.tabs.studio.folder))

    def _open(self, do: Callable[[Session, Any], str | None], choice: Any, request: gr.Request) -> Any:
        """Open what was chosen in a box; None is no choice."""
        return _parts(self.tabs.answer(_key(request), lambda session: None if choice is None else do(session, choice)))


def _key(request: gr.Request) -> str:
    """Of a tab: Gradio draws one for each page that is loaded."""
    assert request.session_hash is not None
    return request.session_hash


def _parts(view: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """A view for the stage and the box of the name, which is left alone where it stays."""
    return {key: value for key, value in view.items() if key != "name"}, view.get("name", gr.skip())


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
