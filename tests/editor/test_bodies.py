"""Requests are bounded before they are read, and refused in one line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.exceptions import HTTPException

from hdgan.editor.bodies import Bodies, Quiet
from hdgan.errors import HdganError

LIMITS = {"/event": 100, "/upload": 1000}
Capture = pytest.CaptureFixture[str]


def check(body: bytes) -> bytes:
    if b"bad" in body:
        raise HdganError("the request is malformed: \x1b[31m")
    return body.upper()


class App:
    """Takes a whole request and says so."""

    def __init__(self, error: Exception | None = None, begun: bool = False) -> None:
        self.got: bytes | None = None
        self.error = error
        self.begun = begun

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.got = b""
        more = True
        while more:
            message = await receive()
            self.got += message["body"]
            more = message.get("more_body", False)
        if self.begun or self.error is None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok", "more_body": self.begun})
        if self.error is not None:
            raise self.error


def ask(app: Any, path: str, pieces: list[bytes], method: str = "POST", **headers: str) -> tuple[int, str, int]:
    """Status and text of the answer, and how many pieces of the request were received."""
    sent: list[Any] = []
    left: Iterator[bytes] = iter(pieces)
    received = 0

    async def receive() -> Any:
        nonlocal received
        piece = next(left, None)
        if piece is None:
            return {"type": "http.disconnect"}
        received += 1
        return {"type": "http.request", "body": piece, "more_body": received < len(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"content-length": str(sum(map(len, pieces)))} | {key.replace("_", "-"): v for key, v in headers.items()}
    raw = [(key.encode(), value.encode()) for key, value in given.items()]
    asyncio.run(app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send))
    text = b"".join(message.get("body", b"") for message in sent).decode()
    return sent[0]["status"], text, received


def test_the_pages_requests_reach_the_app() -> None:
    app = App()
    bodies = Bodies(app, LIMITS, {"/event": check})
    assert ask(bodies, "/event", [b"ab", b"c"]) == (200, "ok", 2)
    assert app.got == b"ABC"
    assert ask(bodies, "/upload", [b"x" * 500, b"y" * 500])[0] == 200
    assert app.got == b"x" * 500 + b"y" * 500
    assert ask(bodies, "/anything", [b""], "GET")[0] == 200


@pytest.mark.parametrize(
    ("path", "pieces", "headers", "status", "says"),
    [
        ("/event", [b"x" * 50] * 3, {}, 413, "the request is too large (150 bytes): send 100 bytes at most"),
        ("/upload", [b"x" * 1001], {}, 413, "(1001 bytes): send 1000 bytes at most"),
        ("/event", [b"x"], {"content_length": ""}, 411, "send Content-Length"),
        ("/event", [b"x"], {"content_length": "-1"}, 411, "send Content-Length"),
        ("/event", [b"x"], {"content_length": "9" * 5000}, 411, "send Content-Length"),
        ("/event", [b"x"], {"transfer_encoding": "chunked"}, 411, "send Content-Length"),
        ("/elsewhere", [b"x"], {}, 404, "the editor takes no such request"),
        ("/event/", [b"x"], {}, 404, "the editor takes no such request"),
        ("/event", [b"bad"], {}, 400, "the request is malformed: ?[31m"),
    ],
)
def test_others_are_refused_in_one_line(
    path: str, pieces: list[bytes], headers: dict[str, str], status: int, says: str, capsys: Capture
) -> None:
    app = App()
    answered, text, received = ask(Bodies(app, LIMITS, {"/event": check}), path, pieces, **headers)
    assert answered == status
    assert says in json.loads(text)["detail"]
    assert received == len(pieces)  # or the browser would show no answer
    assert app.got is None
    assert capsys.readouterr().err == f"refused a request ({status}): {json.loads(text)['detail']}\n"


def test_an_answer_that_ends_early_is_one_line(capsys: Capture) -> None:
    error = RuntimeError("response already started")
    error.__cause__ = HTTPException(404)
    status, text, _ = ask(Quiet(App(error, begun=True), "/upload"), "/events", [b""])
    assert (status, text) == (200, "ok")
    assert capsys.readouterr().err == "ended a request for /events: 404: Not Found\n"


@pytest.mark.parametrize(("error", "status"), [(TypeError("no file"), 400), (OSError(28, "No space left"), 507)])
def test_an_upload_that_fails_is_one_line(error: Exception, status: int, capsys: Capture) -> None:
    answered, text, _ = ask(Quiet(App(error), "/upload"), "/upload", [b"x"])
    assert answered == status
    assert str(error) in json.loads(text)["detail"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bug_is_no_malformed_request() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(Quiet(App(ZeroDivisionError()), "/upload"), "/event", [b"x"])
