"""Requests of other web sites are refused before the editor sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from hdgan.editor.guard import Guard, why_refused


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
        ("localhost", "https://localhost:443", "127.0.0.1"),
    ],
)
def test_the_page_itself_is_let_in(host: str, origin: str | None, own: str) -> None:
    assert why_refused(host, origin, own) == ""


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "[::1", "a:b"])
def test_names_that_are_not_the_editors(host: str) -> None:
    assert "is not the editor's" in why_refused(host, None, "0.0.0.0")
    assert "--host" in why_refused(host, f"http://{host}", "127.0.0.1")


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
def test_pages_of_other_sites(origin: str) -> None:
    assert "not from the editor's page" in why_refused("127.0.0.1:7860", origin, "127.0.0.1")


def answers(scope: dict[str, Any]) -> list[Any]:
    """What is sent in answer to a request; an app that is reached says so."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "reached"})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(app, "127.0.0.1")(scope, receive, send))
    return sent


def test_the_app_is_reached_by_its_own_page_alone() -> None:
    own, foreign = (b"host", b"127.0.0.1:7860"), (b"origin", b"http://evil.example")
    assert answers({"type": "lifespan"}) == [{"type": "reached"}]
    assert answers({"type": "http", "headers": [own]}) == [{"type": "reached"}]
    start, body = answers({"type": "http", "headers": [own, foreign]})
    assert start["status"] == 403
    assert b"evil.example" in body["body"]
    assert answers({"type": "http", "headers": []})[0]["status"] == 403
    assert answers({"type": "websocket", "headers": [own]}) == [{"type": "reached"}]
    assert answers({"type": "websocket", "headers": [own, foreign]}) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("host", [b"127.0.0.1:7860", b"evil.example"])
def test_no_answer_can_be_framed_by_another_site(host: bytes) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("page", headers={"Content-Security-Policy": "img-src 'self'"})(scope, receive, send)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(app, "127.0.0.1")({"type": "http", "headers": [(b"host", host)]}, None, send))  # type: ignore
    policies = Headers(raw=sent[0]["headers"]).getlist("Content-Security-Policy")
    assert "frame-ancestors 'self'" in policies
    assert ("img-src 'self'" in policies) == (sent[0]["status"] == 200)
