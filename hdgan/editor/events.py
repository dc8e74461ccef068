"""What the page may send, checked before anything is done with it.

A request for an event is JSON: the number of the event's function, the page's key, the values of the boxes that the
function takes, and for the stage what is to be done there. Another program could send anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from hdgan.errors import HdganError
from hdgan.files.json import parse_json
from hdgan.wording import count

T = TypeVar("T")

MAX_POINTS = 200_000
"""Of a stroke: what half an hour of drawing gives."""
MAX_EVENT_BYTES = 24 * MAX_POINTS
"""Of a request for an event; the page rounds a point to hundredths, which takes fewer."""
_MAX_CORNERS = 10_000
_FAR = 1e6

_Distance = Annotated[float, Strict(), Field(ge=-_FAR, le=_FAR, allow_inf_nan=False)]
_Number = Annotated[int, Strict(), Field(ge=0, lt=2**31)]
_Flag = Annotated[bool, Strict()]
_Text = Annotated[str, Strict(), Field(max_length=1000)]
_Key = Annotated[str, Strict(), Field(min_length=1, max_length=100)]
_Point = tuple[_Distance, _Distance]


class MalformedError(HdganError):
    """A request that the editor's page would not send."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Edit(_Checked):
    serial: Annotated[int, Strict(), Field(ge=0, lt=2**53)]

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the session's method; coordinates and distances are in pixels."""
        return {name: value for name, value in self if name not in ("action", "serial")}


class _Plain(_Edit):
    action: Literal["deselect", "remove", "random", "undo", "redo"]


class _Select(_Edit):
    action: Literal["select"]
    x: _Distance
    y: _Distance


class _Style(_Edit):
    action: Literal["style"]
    cluster: _Number | None


class _Class(_Edit):
    action: Literal["class"]
    label: _Number


class _Shift(_Edit):
    action: Literal["copy", "move"]
    dx: _Distance
    dy: _Distance


class _Brush(_Edit):
    action: Literal["brush"]
    points: Annotated[list[_Point], Field(max_length=MAX_POINTS)]
    width: Annotated[_Distance, Field(ge=0)]
    label: _Number
    extend: _Flag = False


class _Polygon(_Edit):
    action: Literal["polygon"]
    points: Annotated[list[_Point], Field(max_length=_MAX_CORNERS)]
    label: _Number
    extend: _Flag = False


Edit: TypeAlias = _Plain | _Select | _Style | _Class | _Shift | _Brush | _Polygon
"""What the stage asks for: the name of an action of `Session.act` and its arguments."""
_EDIT: TypeAdapter[Edit] = TypeAdapter(Annotated[Edit, Field(discriminator="action")])


class _Meta(BaseModel):
    type: Annotated[Literal["gradio.FileData"], Field(alias="_type")]


class _Upload(BaseModel):
    """A file that Gradio has taken; it knows more of it."""

    path: _Text
    is_stream: Literal[False] = False
    meta: _Meta


class _Request(BaseModel):
    """Of an event. Gradio's page may send more, which is not passed on."""

    fn_index: _Number
    session_hash: _Key
    data: Annotated[list[Any], Field(max_length=10)]
    event_data: Any = None
    trigger_id: _Number | None = None


_REQUEST = TypeAdapter(_Request)

BOXES: Mapping[str, TypeAdapter[Any]] = {
    "sample": TypeAdapter(_Number | None),
    "saved": TypeAdapter(_Text | None),
    "name": TypeAdapter(_Text),
    "former": TypeAdapter(_Key | None),
    "label-file": TypeAdapter(_Upload | None),
    "instance-file": TypeAdapter(_Upload | None),
    "look-file": TypeAdapter(_Upload | None),
}
"""What each box may hold, by its `elem_id`."""


@dataclass(frozen=True)
class Function:
    """What an event calls."""

    boxes: tuple[str, ...]
    """Whose values it takes."""
    edits: bool
    """It takes an `Edit` too."""


def parse_edit(text: str) -> Edit:
    """Read what the stage asks for, as `checked_request` has written it.

    Raises:
        MalformedError: no page would ask for that.
    """
    return _checked(_EDIT, parse_json(text, "the request", "reload the page", MalformedError), "event_data")


def checked_request(body: bytes, functions: Mapping[int, Function], uploads: Path) -> bytes:
    """Make sure that a request for an event is one that the page could send.

    Args:
        body: of the request.
        functions: by number.
        uploads: folder of the files that were uploaded.

    Returns:
        The same request without anything that was not looked at. What the stage asks for is a text in it, JSON for
        `parse_edit`: Gradio would take longer to pass a stroke on than it takes to draw it.

    Raises:
        MalformedError: it is not, or an uploaded file is there no longer.
    """
    request = _checked(_REQUEST, parse_json(body, "the request", "reload the page", MalformedError), "body")
    function = functions.get(request.fn_index)
    if function is None:
        raise MalformedError(f"the request is malformed: there is no function {request.fn_index}; reload the page")
    if len(request.data) != len(function.boxes):
        raise MalformedError(
            f"the request is malformed: function {request.fn_index} takes {count(len(function.boxes), 'value')}, got "
            f"{len(request.data)}; reload the page"
        )
    data = [_checked(BOXES[box], value, box) for box, value in zip(function.boxes, request.data, strict=True)]
    for value in data:
        if isinstance(value, _Upload) and not _is_upload(value.path, uploads):
            raise MalformedError(f"the uploaded file {Path(value.path).name!r} is there no longer: choose it again")
    edit = None
    if function.edits:
        edit = _checked(_EDIT, request.event_data, "event_data").model_dump_json()
    return request.model_copy(update={"data": data, "event_data": edit}).model_dump_json(by_alias=True).encode()


def _checked(kind: TypeAdapter[T], data: Any, where: str) -> T:
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join([where, *map(str, first["loc"])])
        what = re.split(" or (?:instance|object) ", first["msg"])[0]  # no names of classes
        raise MalformedError(f"the request is malformed: {place}: {what}; reload the page") from None


def _is_upload(path: str, uploads: Path) -> bool:
    """Whether a path is that of an uploaded file that is still there."""
    try:
        file = Path(path).resolve()
        return file.is_relative_to(uploads.resolve()) and file.is_file()
    except (OSError, ValueError):  # too long, a NUL, a loop of links
        return False
