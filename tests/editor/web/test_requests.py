"""Requests that the page sends are accepted, and others are refused."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest

pytest.importorskip("pydantic")

from hdgan.editor.session import Session
from hdgan.editor.web.requests import (
    MAX_POINTS,
    MAX_REQUEST_BYTES,
    Action,
    parse_action,
    validated_request,
)
from hdgan.errors import DataError

EDIT, SAMPLE, SAVE, FILES = range(4)
FUNCTIONS = {
    EDIT: (),
    SAMPLE: ("sample",),
    SAVE: ("name",),
    FILES: ("label-file", "instance-file"),
}
STROKE = {"action": "brush", "serial": 1, "points": [[1, 2]], "width": 8, "label": 1}


def request(number: int = EDIT, data: tuple[Any, ...] = (), edit: Any = None, **more: Any) -> bytes:
    body = {"fn_index": number, "session_hash": "abc", "data": data, "event_data": edit, "trigger_id": 8}
    return json.dumps(body | more).encode()


def check(body: bytes, uploads: Path = Path("uploads")) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(validated_request(body, FUNCTIONS, EDIT, uploads))
    return answer


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("undo", {}),
        ("randomize", {}),
        ("select", {"x": 3, "y": 4.25}),
        ("set_style", {"cluster": None}),
        ("set_style", {"cluster": 2}),
        ("set_class", {"label": 3}),
        ("move", {"dx": -3.5, "dy": 0}),
        ("brush", {"points": [(1, 2.5), (3, 4)], "width": 8, "label": 1, "extend": False}),
        ("polygon", {"points": [(1, 2)] * 3, "label": 1, "extend": True}),
    ],
)
def test_actions_of_the_page_reach_the_session(action: str, arguments: dict[str, Any]) -> None:
    passed = check(request(edit={"action": action, "serial": 7, **arguments}))
    edit = parse_action(passed["event_data"])
    assert (edit.action, edit.serial, edit.arguments) == (action, 7, arguments)
    assert (passed["session_hash"], passed["trigger_id"]) == ("abc", 8)


def test_every_action_is_a_method_of_the_session(session: Session) -> None:
    for kind in get_args(get_args(Action)[0]):
        for action in get_args(kind.model_fields["action"].annotation):
            assert callable(getattr(session, action))
            with pytest.raises(DataError, match=rf"event_data\.{action}\.serial: Field required"):
                check(request(edit={"action": action}))


def test_the_longest_stroke_fits_and_longer_ones_do_not() -> None:
    longest = "[-12345.67,12345.67],"  # as the page writes it
    assert len(longest) * MAX_POINTS < MAX_REQUEST_BYTES
    for n, refused in ((MAX_POINTS, False), (MAX_POINTS + 1, True)):
        body = request(edit=STROKE).replace(b"[1, 2]", b",".join([b"[1,2]"] * n))
        with pytest.raises(DataError, match="at most 200000 items") if refused else nullcontext():
            check(body)


def test_unchecked_fields_are_not_passed_on() -> None:
    passed = check(request(SAMPLE, (1,), {"index": [[[]]]}, batched=True, event_id="x"))
    assert passed == {"fn_index": 1, "session_hash": "abc", "data": [1], "event_data": None, "trigger_id": 8}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (None, "event_data: Input should be a valid dictionary"),
        ({}, "event_data: Unable to extract tag"),
        ({"action": "__init__", "serial": 1}, "'__init__'"),
        ({"action": ["undo"], "serial": 1}, "does not match any"),
        ({"action": "undo", "serial": -1}, "undo.serial: Input should be greater"),
        ({"action": "undo", "serial": True}, "undo.serial: Input should be a valid integer"),
        ({"action": "select", "serial": 1, "x": 1}, "select.y: Field required"),
        ({"action": "select", "serial": 1, "x": "1", "y": 1}, "select.x: Input should be a valid number"),
        ({"action": "select", "serial": 1, "x": 1e7, "y": 1}, "select.x: Input should be less"),
        ({"action": "select", "serial": 1, "x": 1, "y": 1, "z": 1}, "select.z: Extra inputs"),
        ({"action": "set_style", "serial": 1, "cluster": -1}, "set_style.cluster: Input should be greater"),
        ({"action": "set_class", "serial": 1, "label": 10**15}, "set_class.label: Input should be less"),
        (STROKE | {"points": {"0": [1, 2]}}, "brush.points: Input should be a valid list"),
        (STROKE | {"points": [[1]]}, r"brush.points.0.1: Field required"),
        (STROKE | {"points": [[1, 2, 3]]}, "brush.points.0: Tuple should have at most 2 items"),
        (STROKE | {"width": -8}, "brush.width: Input should be greater"),
        (STROKE | {"extend": 1}, "brush.extend: Input should be a valid boolean"),
    ],
)
def test_malformed_actions_are_refused(edit: Any, says: str) -> None:
    says = re.escape(says)
    with pytest.raises(DataError, match=rf"^the request is malformed: .*{says}.*; reload the page$"):
        check(request(edit=edit))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "EOF while parsing"),
        (b"\xff", "body: Invalid JSON"),
        (b"null", "body: Input should be an object; reload"),
        (b"[" * 50_000, "recursion limit exceeded"),
        (b'{"fn_index": NaN}', "body.fn_index: Input should be a valid integer"),
        (
            request(edit=STROKE | {"width": 5}).replace(b"5", b"1e999"),
            "brush.width: Input should be a finite number",
        ),
        (request(edit=STROKE | {"width": float("nan")}), "brush.width: Input should be"),
        (request(99), "there is no function 99"),
        (request(EDIT, ("x",)), "function 0 takes 0 values, not 1"),
        (request(SAMPLE), "function 1 takes 1 value, not 0"),
        (request(SAMPLE, ("1",)), "sample: Input should be a valid integer"),
        (request(SAVE, (None,)), "name: Input should be a valid string"),
        (request(SAVE, ("x" * 1001,)), "name: String should have at most 1000"),
        (request(session_hash=None), "body.session_hash: Input should be a valid string"),
        (request(session_hash="\ud800"), "body: Invalid JSON"),
        (request(FILES, ("/etc/passwd", None)), "label-file: Input should be a valid dictionary; reload"),
    ],
)
def test_malformed_requests_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(DataError, match=re.escape(says)):
        check(body)


def upload(path: Path | str) -> dict[str, Any]:
    return {"path": str(path), "orig_name": "map.png", "size": 3, "meta": {"_type": "gradio.FileData"}}


def test_an_uploaded_file_is_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "uploads" / "hash" / "map.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"map")
    passed = check(request(FILES, (upload(file), None)), tmp_path / "uploads")
    assert [passed["data"][0][name] for name in ("path", "meta")] == [str(file), {"_type": "gradio.FileData"}]
    assert passed["data"][1] is None


@pytest.mark.parametrize(
    "path", ["{here}/uploads/gone.png", "{here}/uploads", "{here}/uploads/../secret.txt", "http://a/b.png", "\0"]
)
def test_other_files_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(DataError, match="no longer exists: choose it again"):
        check(request(FILES, (upload(path.format(here=tmp_path)), None)), tmp_path / "uploads")
