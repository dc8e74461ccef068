"""The requests that the page may send, checked before anything is done with them.

A request is JSON: the number of a function, the key of the tab, the values of the function's inputs, and for the
workspace the action to run. Any other program could send anything instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from hdgan.errors import DataError
from hdgan.wording import count

T = TypeVar("T")

MAX_POINTS = 200_000
"""Of a stroke: about half an hour of drawing."""
MAX_REQUEST_BYTES = 24 * MAX_POINTS
"""The page rounds points to hundredths of a pixel, so the longest stroke takes fewer."""
_MAX_CORNERS = 10_000
_MAX_DISTANCE = 1e6

_Pixels = Annotated[float, Strict(), Field(ge=-_MAX_DISTANCE, le=_MAX_DISTANCE, allow_inf_nan=False)]
_Number = Annotated[int, Strict(), Field(ge=0, lt=2**31)]
_Flag = Annotated[bool, Strict()]
_Text = Annotated[str, Strict(), Field(max_length=1000)]
_Key = Annotated[str, Strict(), Field(min_length=1, max_length=100)]
_Point = tuple[_Pixels, _Pixels]


class _Action(BaseModel):
    """An action of the workspace: a method of `Session` and its arguments."""

    model_config = ConfigDict(extra="forbid")
    serial: Annotated[int, Strict(), Field(ge=0, lt=2**53)]

    @property
    def arguments(self) -> dict[str, Any]:
        return {name: value for name, value in self if name not in ("action", "serial")}


class _Plain(_Action):
    action: Literal["deselect", "remove", "randomize", "undo", "redo"]


class _Select(_Action):
    action: Literal["select"]
    x: _Pixels
    y: _Pixels


class _SetStyle(_Action):
    action: Literal["set_style"]
    cluster: _Number | None


class _SetClass(_Action):
    action: Literal["set_class"]
    label: _Number


class _Shift(_Action):
    action: Literal["copy", "move"]
    dx: _Pixels
    dy: _Pixels


class _Polygon(_Action):
    action: Literal["polygon"]
    points: Annotated[list[_Point], Field(max_length=_MAX_CORNERS)]
    label: _Number
    extend: _Flag = False


class _Brush(_Action):
    action: Literal["brush"]
    points: Annotated[list[_Point], Field(max_length=MAX_POINTS)]
    width: Annotated[_Pixels, Field(ge=0)]
    label: _Number
    extend: _Flag = False


Action: TypeAlias = Annotated[
    _Plain | _Select | _SetStyle | _SetClass | _Shift | _Polygon | _Brush, Field(discriminator="action")
]
_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


class _UploadedFile(BaseModel):
    """A file that Gradio has stored. Gradio sends more fields, which are not passed on."""

    path: _Text
    is_stream: Literal[False] = False
    meta: Annotated[dict[Literal["_type"], Literal["gradio.FileData"]], Field(min_length=1)]


class _Request(BaseModel):
    """A request. Gradio's page sends more fields, which are not passed on."""

    fn_index: _Number
    session_hash: _Key
    data: Annotated[list[Any], Field(max_length=10)]
    event_data: Any = None
    trigger_id: _Number | None = None


_REQUEST = TypeAdapter(_Request)
_INPUTS: Mapping[str, TypeAdapter[Any]] = {
    "sample": TypeAdapter(_Number | None),
    "saved": TypeAdapter(_Text | None),
    "name": TypeAdapter(_Text),
    "previous-key": TypeAdapter(_Key | None),
    "label-file": TypeAdapter(_UploadedFile | None),
    "instance-file": TypeAdapter(_UploadedFile | None),
    "appearance-file": TypeAdapter(_UploadedFile | None),
}
"""What each input of the page may contain, by its `elem_id`."""


def parse_action(text: str) -> Action:
    """Read the action that `validated_request` has written."""
    return _ACTION.validate_json(text)


def validated_request(body: bytes, functions: Mapping[int, Sequence[str]], edit: int, uploads: Path) -> bytes:
    """Check that a request is one that the page could send.

    Args:
        body: the request.
        functions: by number, the `elem_id` of each input that a function of the page takes.
        edit: number of the function that takes an action of the workspace.
        uploads: folder of the uploaded files.

    Returns:
        The same request without anything that was not checked. Its action becomes a string, JSON for `parse_action`:
        Gradio would take longer to process the points of a stroke than it takes to draw them.

    Raises:
        DataError: the page would not send this request, or an uploaded file has been deleted.
    """
    request = _validated(_REQUEST, body, "body")
    inputs = functions.get(request.fn_index)
    if inputs is None:
        raise DataError(f"the request is malformed: there is no function {request.fn_index}; reload the page")
    if len(request.data) != len(inputs):
        raise DataError(
            f"the request is malformed: function {request.fn_index} takes {count(len(inputs), 'value')}, not "
            f"{len(request.data)}; reload the page"
        )
    data = [_validated(_INPUTS[name], value, name) for name, value in zip(inputs, request.data, strict=True)]
    for value in data:
        if isinstance(value, _UploadedFile) and not _is_upload(value.path, uploads):
            raise DataError(f"the uploaded file {Path(value.path).name!r} no longer exists: choose it again")
    action = None
    if request.fn_index == edit:
        action = _validated(_ACTION, request.event_data, "event_data").model_dump_json()
    return request.model_copy(update={"data": data, "event_data": action}).model_dump_json().encode()


def _validated(kind: TypeAdapter[T], data: Any, where: str) -> T:
    """Check bytes as JSON, and anything else as values that were read from JSON."""
    try:
        return kind.validate_json(data) if isinstance(data, bytes) else kind.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join([where, *map(str, first["loc"])])
        reason = re.split(" or (?:instance|object) ", first["msg"])[0]  # without names of Python classes
        raise DataError(f"the request is malformed: {place}: {reason}; reload the page") from None


def _is_upload(path: str, uploads: Path) -> bool:
    """Whether a path is an uploaded file that still exists."""
    try:
        file = Path(path).resolve()
        return file.is_relative_to(uploads.resolve()) and file.is_file()
    except (OSError, ValueError):  # a path that is too long or contains NUL, or a loop of links
        return False
