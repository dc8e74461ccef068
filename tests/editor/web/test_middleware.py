"""Requests of other sites, requests that are too large, and failures end in one line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from hdgan.editor.web.middleware import (
    QuietErrorMiddleware,
    RequestLimitMiddleware,
    SameOriginMiddleware,
    refusal_reason,
)
from hdgan.errors import HdganError

LIMITS = {"/event": 100, "/upload": 1000}
Capture = pytest.CaptureFixture[str]


def check(body: bytes) -> bytes:
    if b"bad" in body:
        raise HdganError("the request is malformed: \x1b[31m")
    return body.upper()


class App:
    """An app that receives a whole request and answers `ok`."""

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
    limited = RequestLimitMiddleware(app, LIMITS, {"/event": check})
    assert ask(limited, "/event", [b"ab", b"c"]) == (200, "ok", 2)
    assert app.got == b"ABC"
    assert ask(limited, "/upload", [b"x" * 500, b"y" * 500])[0] == 200
    assert app.got == b"x" * 500 + b"y" * 500
    assert ask(limited, "/anything", [b""], "GET")[0] == 200


@pytest.mark.parametrize(
    ("path", "pieces", "headers", "status", "says"),
    [
        ("/event", [b"x" * 50] * 3, {}, 413, "the request is too large (150 bytes): send at most 100 bytes"),
        ("/upload", [b"x" * 1001], {}, 413, "(1001 bytes): send at most 1000 bytes"),
        ("/event", [b"x"], {"content_length": ""}, 411, "send Content-Length"),
        ("/event", [b"x"], {"content_length": "-1"}, 411, "send Content-Length"),
        ("/event", [b"x"], {"content_length": "9" * 5000}, 411, "send Content-Length"),
        ("/event", [b"x"], {"transfer_encoding": "chunked"}, 411, "send Content-Length"),
        ("/elsewhere", [b"x"], {}, 404, "the editor has no such address"),
        ("/event/", [b"x"], {}, 404, "the editor has no such address"),
        ("/event", [b"bad"], {}, 400, "the request is malformed: ?[31m"),
    ],
)
def test_others_are_refused_in_one_line(
    path: str, pieces: list[bytes], headers: dict[str, str], status: int, says: str, capsys: Capture
) -> None:
    app = App()
    answered, text, received = ask(RequestLimitMiddleware(app, LIMITS, {"/event": check}), path, pieces, **headers)
    assert answered == status
    assert says in json.loads(text)["detail"]
    assert received == len(pieces)  # otherwise the browser would show no answer
    assert app.got is None
    assert capsys.readouterr().err == f"refused a request ({status}): {json.loads(text)['detail']}\n"


def test_an_answer_that_ends_early_is_reported_in_one_line(capsys: Capture) -> None:
    error = RuntimeError("response already started")
    error.__cause__ = HTTPException(404)
    status, text, _ = ask(QuietErrorMiddleware(App(error, begun=True), "/upload"), "/events", [b""])
    assert (status, text) == (200, "ok")
    assert capsys.readouterr().err == "ended a request for /events: 404: Not Found\n"


@pytest.mark.parametrize(("error", "status"), [(TypeError("no file"), 400), (OSError(28, "No space left"), 507)])
def test_a_failed_upload_is_reported_in_one_line(error: Exception, status: int, capsys: Capture) -> None:
    answered, text, _ = ask(QuietErrorMiddleware(App(error), "/upload"), "/upload", [b"x"])
    assert answered == status
    assert str(error) in json.loads(text)["detail"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(QuietErrorMiddleware(App(ZeroDivisionError()), "/upload"), "/event", [b"x"])


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("127.0.0.1:7860", None, "127.0.0.1"),
        ("127.0.0.1:7860", "http://127.0.0.1:7860", "127.0.0.1"),
        ("localhost:7860", "http://localhost:7860", "127.0.0.1"),
        ("LocalHost:7860", "http://localhost:7860", "127.0.0.1"),
        ("192.168.1.5:7860", "http://192.168.1.5:7860", "0.0.0.0"),
        ("[::1]:7860", "http://[::1]:7860", "::1"),
        ("GPUbox:7860", "http://gpubox:7860", "GPUbox"),
        ("localhost", "http://localhost", "127.0.0.1"),
        ("localhost:443", "https://localhost", "127.0.0.1"),
    ],
)
def test_the_page_itself_is_accepted(host: str, origin: str | None, own: str) -> None:
    assert refusal_reason(host, origin, own) == ""


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "[::1", "a:b"])
def test_other_host_names_are_refused(host: str) -> None:
    assert "is not the editor's" in refusal_reason(host, None, "0.0.0.0")
    assert "--host" in refusal_reason(host, f"http://{host}", "127.0.0.1")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://localhost:7860",
        "http://127.0.0.1:80",
        "http://127.0.0.1",
        "http://[",
        "ftp://127.0.0.1:7860",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:7860.evil.example",
    ],
)
def test_pages_of_other_sites_are_refused(origin: str) -> None:
    assert "not from the editor's page" in refusal_reason("127.0.0.1:7860", origin, "127.0.0.1")


def answers(scope: dict[str, Any]) -> list[Any]:
    """The messages that answer a request. An app that is reached sends `reached`."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "reached"})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(SameOriginMiddleware(app, "127.0.0.1")(scope, receive, send))
    return sent


def test_only_the_editors_own_page_reaches_the_app() -> None:
    own, foreign = (b"host", b"127.0.0.1:7860"), (b"origin", b"http://evil.example")
    assert answers({"type": "lifespan"}) == [{"type": "reached"}]
    assert answers({"type": "http", "headers": [own]}) == [{"type": "reached"}]
    start, body = answers({"type": "http", "headers": [own, foreign]})
    assert start["status"] == 403
    assert b"evil.example" in body["body"]
    assert answers({"type": "http", "headers": []})[0]["status"] == 403
    assert answers({"type": "websocket", "headers": [own]}) == [{"type": "reached"}]
    assert answers({"type": "websocket", "headers": [own, foreign]})[0]["status"] == 403


@pytest.mark.parametrize("host", [b"127.0.0.1:7860", b"evil.example"])
def test_no_answer_can_be_framed_by_another_site(host: bytes) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("page", headers={"Content-Security-Policy": "img-src 'self'"})(scope, receive, send)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(SameOriginMiddleware(app, "127.0.0.1")({"type": "http", "headers": [(b"host", host)]}, None, send))  # type: ignore
    policies = Headers(raw=sent[0]["headers"]).getlist("Content-Security-Policy")
    assert "frame-ancestors 'self'" in policies
    assert ("img-src 'self'" in policies) == (sent[0]["status"] == 200)
