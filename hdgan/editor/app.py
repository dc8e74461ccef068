"""The web page of the editor: Gradio carries events to the session of a tab and its view back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from hdgan.editor.bodies import Bodies, Quiet
from hdgan.editor.events import MAX_EVENT_BYTES, Function, checked_request, parse_edit
from hdgan.editor.files import saved_names
from hdgan.editor.guard import Guard
from hdgan.editor.session import UNNAMED, Session
from hdgan.editor.studio import MAX_PIXELS, Studio
from hdgan.editor.tabs import Tabs
from hdgan.errors import HdganError

_HERE = Path(__file__).parent
_FONTS = ("system-ui", "sans-serif")  # no fonts from the network
_BYTES_PER_PIXEL = 8  # of an upload: no map and no photo has more
_SMALLEST_LIMIT = 1 << 20  # bytes; styles do not grow with the pixels
_UPLOADS_KEPT = (3600, 3600)  # seconds between sweeps, and of age
_VIEWS_KEPT = 32  # tabs of which Gradio keeps the last view; nothing needs it
_AROUND_UPLOAD = 1 << 16  # bytes of a request beside the file that it brings

# A page that goes away leaves its tab's key behind (stage.js) for the one that is loaded next. It is taken at once, so
# that a copy of the tab finds none.
_TAKE_FORMER_KEY = """() => {
    const key = sessionStorage.getItem("hdgan-tab");
    sessionStorage.removeItem("hdgan-tab");
    return key;
}"""


# A request that was refused has no answer, for which the stage would wait.
_TELL_STAGE = """() => document.dispatchEvent(new Event("hdgan-refused"))"""


def build(studio: Studio) -> gr.Blocks:
    """Make the page.

    Args:
        studio: what its sessions share.
    """
    events = _Events(Tabs(studio))
    stems = [] if studio.samples is None else [(pair.stem, k) for k, pair in enumerate(studio.samples.pairs)]
    with gr.Blocks(title="hdgan edit", analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS_KEPT) as blocks:
        former = gr.Textbox(visible=False, elem_id="former")
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
        edit = stage.edit(events.edit, None, shown, show_progress="hidden", **options)  # the stage shows its own
        edit.failure(js=_TELL_STAGE)
        options |= {"show_progress": "minimal", "show_progress_on": stage}
        # `select` is a choice, be it of the same entry again (by keyboard: see stage.js); `input` fires on blur too.
        # Gradio would compare a choice with a list that may be older than the page's: the session knows better.
        sample.select(events.open_sample, sample, shown, preprocess=False, **options)
        saved.select(events.open_saved, saved, shown, preprocess=False, **options)
        open_own.click(events.open_files, [label, instance, look], shown, **options)
        gr.on([save.click, name.submit], events.save_as, name, [*shown, saved], **options)
        blocks.load(events.begin, former, [*shown, saved], js=_TAKE_FORMER_KEY, **options)
        # Other tabs save too. This waits for no picture.
        saved.focus(
            events.list_saved, None, saved, concurrency_id="list", show_progress="hidden", api_visibility="private"
        )
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
        HdganError: the address is none of this machine, the port is taken, or a proxy stands before this machine.
    """
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HdganError(f"--host {host:.300} is no address to listen on: give 127.0.0.1 or 0.0.0.0") from error
    largest_file = max(max_pixels * _BYTES_PER_PIXEL, _SMALLEST_LIMIT)
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
            state_session_capacity=_VIEWS_KEPT,
            max_file_size=largest_file,
            app_kwargs={"middleware": [Middleware(Guard, host=host), *_bounds(blocks, largest_file)]},
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


def _bounds(blocks: gr.Blocks, largest_file: int) -> list[Middleware]:
    """What bounds the requests of a page."""
    functions = {
        number: Function(tuple(str(box.elem_id) for box in fn.inputs), ("edit" in dict(fn.targets).values()))
        for number, fn in blocks.fns.items()
        if fn.fn is not None
    }
    uploads = Path(get_upload_folder())
    event, upload = f"{API_PREFIX}/queue/join", f"{API_PREFIX}/upload"
    limits = {event: MAX_EVENT_BYTES, upload: largest_file + _AROUND_UPLOAD}
    checks = {event: lambda body: checked_request(body, functions, uploads)}
    return [Middleware(Quiet, upload=upload), Middleware(Bodies, limits=limits, checks=checks)]


class _Events:
    """What happens in the page. Each returns a view for the stage and a name for its box, some the saved names too."""

    def __init__(self, tabs: Tabs) -> None:
        self.tabs = tabs

    def begin(self, former: str | None, request: gr.Request) -> Any:
        return *_parts(self.tabs.begin(_key(request), former)), self.list_saved()

    def edit(self, event: gr.EventData, request: gr.Request) -> Any:
        edit = parse_edit(event._data)
        return _parts(
            self.tabs.answer(_key(request), lambda session: session.act(edit.action, edit.arguments), edit.serial)
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
