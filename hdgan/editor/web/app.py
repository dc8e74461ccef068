"""The page and its server. Gradio carries requests to the session of a tab, and what the page shows back to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from hdgan.editor.context import EditorContext
from hdgan.editor.session import DEFAULT_NAME, Session
from hdgan.editor.session_store import SessionStore
from hdgan.editor.storage import saved_names
from hdgan.editor.web.middleware import QuietErrorMiddleware, RequestLimitMiddleware, SameOriginMiddleware
from hdgan.editor.web.requests import MAX_REQUEST_BYTES, parse_action, validated_request
from hdgan.errors import HdganError

_HERE = Path(__file__).parent
_FONTS = ("system-ui", "sans-serif")  # none that the browser would load from the network
_BYTES_PER_PIXEL = 8  # of an uploaded file; no map and no photo takes more
_MIN_FILE_LIMIT = 1 << 20  # bytes; the size of a styles file does not depend on the pixels
_FORM_BYTES = 1 << 16  # of an upload request, besides the file
_DELETE_UPLOADS = (3600, 3600)  # check every so many seconds, and delete uploads that are older than so many
_CACHED_TABS = 32  # whose last content Gradio keeps, although nothing needs it

# The page that is unloaded leaves the key of its tab for the one that is loaded next (workspace.js). It is removed at
# once, so that a duplicate of the tab does not find it.
_TAKE_PREVIOUS_KEY = """() => {
    const key = sessionStorage.getItem("hdgan-tab");
    sessionStorage.removeItem("hdgan-tab");
    return key;
}"""
# The workspace waits for an answer, and a refused request has none.
_NOTIFY_REFUSED = """() => document.dispatchEvent(new Event("hdgan-refused"))"""


def build_page(context: EditorContext) -> gr.Blocks:
    """Make the page for a model."""
    handlers = _Handlers(SessionStore(context))
    samples = [] if context.samples is None else [(pair.stem, k) for k, pair in enumerate(context.samples.pairs)]
    with gr.Blocks(title="hdgan edit", analytics_enabled=False, fill_width=True, delete_cache=_DELETE_UPLOADS) as page:
        previous_key = gr.Textbox(visible=False, elem_id="previous-key")
        with gr.Row():
            sample = gr.Dropdown(
                samples, value=0 if samples else None, label="Start from a held-out image", elem_id="sample"
            )
            saved = gr.Dropdown([], value=None, label="Open a saved document", elem_id="saved")
            name = gr.Textbox(DEFAULT_NAME, label="Save as", elem_id="name", max_lines=1)
            save = gr.Button("Save", elem_id="save", scale=0, min_width=90)
        workspace = gr.HTML(
            {},
            html_template=_read("workspace.html"),
            js_on_load=_read("workspace.js"),
            apply_default_css=False,
            elem_id="workspace",
        )
        with gr.Accordion("Open your own files", open=False), gr.Row():
            label = gr.File(label="Label map", elem_id="label-file", height=120)
            instance = gr.File(label="Instance map", elem_id="instance-file", height=120)
            appearance = gr.File(label="Photo or styles (optional)", elem_id="appearance-file", height=120)
            open_files = gr.Button("Open", elem_id="open-files", scale=0, min_width=90)

        # Requests run one at a time, since there is one model. `multiple` queues those that arrive meanwhile.
        options: dict[str, Any] = {
            "trigger_mode": "multiple",
            "concurrency_id": "session",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        shown = [workspace, name]
        edit = workspace.edit(handlers.edit, None, shown, show_progress="hidden", **options)  # it has its own progress
        edit.failure(js=_NOTIFY_REFUSED)
        # The page asks for the image of which it shows a preview. No edit waits for it: it has a queue of its own.
        workspace.tick(
            handlers.refine, None, workspace, show_progress="hidden", **options | {"concurrency_id": "refine"}
        )
        options |= {"show_progress": "minimal", "show_progress_on": workspace}
        # `select` fires for every choice, even of the same entry (by keyboard: see workspace.js); `input` fires on blur
        # too. Without preprocessing, since Gradio would compare the choice with a list that may be out of date.
        sample.select(handlers.open_sample, sample, shown, preprocess=False, **options)
        saved.select(handlers.open_saved, saved, shown, preprocess=False, **options)
        open_files.click(handlers.open_files, [label, instance, appearance], shown, **options)
        gr.on([save.click, name.submit], handlers.save, name, [*shown, saved], **options)
        page.load(handlers.connect, previous_key, [*shown, saved], js=_TAKE_PREVIOUS_KEY, **options)
        # Other tabs save documents too. This has a queue of its own, so it does not wait for the model.
        saved.focus(
            handlers.list_saved, None, saved, concurrency_id="list", show_progress="hidden", api_visibility="private"
        )
    return page


def serve(context: EditorContext, host: str, port: int | None, open_browser: bool) -> None:
    """Show the page until Ctrl-C.

    Args:
        context: the model.
        host: address to listen on.
        port: port to listen on; None is the first free one from 7860.
        open_browser: whether to open the page in the user's browser.

    Raises:
        HdganError: as `launch`.
    """
    page, url = launch(context, host, port, open_browser)
    print(f"{url} (Ctrl-C ends the editor)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)


def launch(
    context: EditorContext, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False
) -> tuple[gr.Blocks, str]:
    """Start the server in the background and return the page and its address. The arguments are those of `serve`.

    Raises:
        HdganError: the port is taken or the address is not one of this machine, or a proxy is in between.
    """
    page = build_page(context)
    max_file_bytes = max(context.max_pixels * _BYTES_PER_PIXEL, _MIN_FILE_LIMIT)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            state_session_capacity=_CACHED_TABS,
            max_file_size=max_file_bytes,
            app_kwargs={"middleware": _middleware(page, host, max_file_bytes)},
            theme=gr.themes.Default(font=_FONTS, font_mono=("monospace",)),
            css=_read("workspace.css"),
        )
    except OSError as error:
        raise HdganError(
            f"cannot listen on {host}, port {port or '7860 to 7959'} ({error}): give another --port"
        ) from error
    except Exception as error:
        # Gradio sends a request to its own server. If a proxy answers instead, the error has no type of its own.
        if "localhost" not in str(error) and not isinstance(error, httpx.TransportError):
            raise
        page.close(verbose=False)
        raise HdganError(
            f"the page cannot be reached from this machine ({error}): if a proxy is set, also set "
            "NO_PROXY=127.0.0.1,localhost"
        ) from error
    return page, url


def _middleware(page: gr.Blocks, host: str, max_file_bytes: int) -> list[Middleware]:
    called = {number: fn for number, fn in page.fns.items() if fn.fn is not None}
    functions = {number: [str(box.elem_id) for box in fn.inputs] for number, fn in called.items()}
    edit = next(number for number, fn in called.items() if "edit" in dict(fn.targets).values())
    uploads = Path(get_upload_folder())
    join, upload = f"{API_PREFIX}/queue/join", f"{API_PREFIX}/upload"
    return [
        Middleware(SameOriginMiddleware, host=host),
        Middleware(QuietErrorMiddleware, upload=upload),
        Middleware(
            RequestLimitMiddleware,
            limits={join: MAX_REQUEST_BYTES, upload: max_file_bytes + _FORM_BYTES},
            validators={join: lambda body: validated_request(body, functions, edit, uploads)},
        ),
    ]


class _Handlers:
    """The functions of the page. Each returns the content of workspace and name box, some also the saved names."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store

    def connect(self, previous_key: str | None, request: gr.Request) -> Any:
        return *_outputs(self.store.connect(_key(request), previous_key)), self.list_saved()

    def edit(self, event: gr.EventData, request: gr.Request) -> Any:
        action = parse_action(event._data)
        return self._run(lambda session: getattr(session, action.action)(**action.arguments), request, action.serial)

    def refine(self, request: gr.Request) -> dict[str, Any]:
        return self.store.refine(_key(request))

    # A dropdown without a choice sends None.

    def open_sample(self, number: int | None, request: gr.Request) -> Any:
        return self._run(lambda session: None if number is None else session.open_sample(number), request)

    def open_saved(self, name: str | None, request: gr.Request) -> Any:
        return self._run(lambda session: None if name is None else session.open_saved(name), request)

    def open_files(self, label: str | None, instance: str | None, appearance: str | None, request: gr.Request) -> Any:
        return self._run(lambda session: _open_uploads(session, label, instance, appearance), request)

    def save(self, name: str, request: gr.Request) -> Any:
        shown = self._run(lambda session: f"Saved in {session.save(name)}", request)
        return *shown, gr.Dropdown(saved_names(self.store.context.folder), value=None)

    def list_saved(self) -> gr.Dropdown:
        return gr.Dropdown(saved_names(self.store.context.folder))

    def _run(self, action: Callable[[Session], str | None], request: gr.Request, serial: int | None = None) -> Any:
        return _outputs(self.store.run(_key(request), action, serial))


def _key(request: gr.Request) -> str:
    """The key of a tab: Gradio draws one whenever a page is loaded."""
    assert request.session_hash is not None
    return request.session_hash


def _outputs(content: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The content of the workspace and of the name box, which usually stays as it is."""
    return {key: value for key, value in content.items() if key != "name"}, content.get("name", gr.skip())


def _open_uploads(session: Session, label: str | None, instance: str | None, appearance: str | None) -> None:
    if label is None:
        raise HdganError("no label map was chosen: choose a file")
    files = [None if file is None else Path(file) for file in (label, instance, appearance)]
    try:
        session.open_files(Path(label), *files[1:])
    except HdganError as error:
        # Users know the names of their files, not the paths on the server.
        message = str(error)
        for file in filter(None, files):
            message = message.replace(str(file), file.name)
        raise HdganError(message) from error


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
