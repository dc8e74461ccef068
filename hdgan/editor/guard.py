"""Keeps other web sites out: a browser lets any page send requests to a server on the user's machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PORTS = {"http": 80, "https": 443}


class Guard:
    """ASGI middleware that answers 403 to what does not come from the editor's own page.

    Host must be an address, localhost or the editor's own name: a site whose name was pointed at this machine (DNS
    rebinding) sends its own. Origin, where the browser sends one, must be Host: another site's page sends that site.
    And no other site's page may show the editor in a frame, where clicks that are meant for that page would reach it.

    Args:
        app: that it guards.
        host: name or address that the editor listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("Content-Security-Policy", "frame-ancestors 'self'")
            await send(message)

        headers = Headers(scope=scope)
        refusal = why_refused(headers.get("host", ""), headers.get("origin"), self.host)
        if not refusal:
            await self.app(scope, receive, send_unframed)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(refusal + "\n", status_code=403)(scope, receive, send_unframed)


def why_refused(host: str, origin: str | None, own: str) -> str:
    """Why a request is refused; empty for one that is not.

    Args:
        host: its header.
        origin: its header; None if it has none.
        own: name or address that the editor listens on.
    """
    try:
        target = urlsplit(f"//{host}")
        name, port = target.hostname or "", target.port
    except ValueError:
        name, port = "", None
    if name not in ("localhost", own.lower()) and not _is_address(name):
        return f"the host {host!r} is not the editor's: open its address, or start it with --host NAME"
    if origin is None:
        return ""
    try:
        source = urlsplit(origin)
        usual = _PORTS.get(source.scheme)
        same = usual is not None and (source.hostname, source.port or usual) == (name, port or usual)
    except ValueError:
        same = False
    return "" if same else f"the request comes from {origin!r}, not from the editor's page at {host!r}"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
