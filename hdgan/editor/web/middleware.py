"""The layer in front of Gradio: requests from other sites and programs, and failed uploads, are answered here with one
line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hdgan.errors import HdganError

_METHODS_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
_LENGTH = re.compile("[0-9]{1,15}")


class SameOriginMiddleware:
    """Answers 403 to requests that do not come from the editor's own page.

    A browser lets any page send requests to a server on the user's machine. So Host must be an address, localhost or
    the editor's own name: a site whose name was pointed at this machine (DNS rebinding) sends its own name. Origin, if
    the browser sends one, must match Host: the page of another site sends that site. The page cannot be shown in a
    frame of another site either, where clicks meant for that site could reach the editor (clickjacking).

    Args:
        app: the application behind it.
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
        reason = refusal_reason(headers.get("host", ""), headers.get("origin"), self.host)
        app = PlainTextResponse(f"{reason}\n", status_code=403) if reason else self.app
        await app(scope, receive, send_unframed)


def refusal_reason(host: str, origin: str | None, own: str) -> str:
    """Why a request is refused; empty if it is not.

    Args:
        host: its header Host.
        origin: its header Origin; None without one.
        own: name or address that the editor listens on.
    """
    host = host.lower()
    if not _is_own_host(host, own.lower()):
        return f"the host {host!r} is not the editor's: open its address, or start the editor with --host NAME"
    # Browsers leave the standard port out of Origin, but a proxy may add it to Host.
    allowed = (None, f"http://{host.removesuffix(':80')}", f"https://{host.removesuffix(':443')}")
    return "" if origin in allowed else f"the request comes from {origin!r}, not from the editor's page at {host!r}"


def _is_own_host(host: str, own: str) -> bool:
    try:
        target = urlsplit(f"//{host}")
        _ = target.port  # raises where it is not a number
        return target.hostname in ("localhost", own) or bool(ip_address(target.hostname or ""))
    except ValueError:
        return False


class RequestLimitMiddleware:
    """Refuses requests with a body, unless the page sends such requests and this one is valid and not too large.

    A browser shows an answer only after it has sent its whole request. So the body of a refused request is received as
    well, and discarded piece by piece.

    Args:
        app: the application behind it.
        limits: maximum bytes of a body, by path; other paths accept no body.
        validators: by path; called with the body, a validator returns the one to pass on, or raises HdganError.
    """

    def __init__(
        self, app: ASGIApp, limits: Mapping[str, int], validators: Mapping[str, Callable[[bytes], bytes]]
    ) -> None:
        self.app = app
        self.limits = limits
        self.validators = validators

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _METHODS_WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = self._refusal(request)
        try:
            if refusal is not None:
                async for _ in request.stream():
                    pass
            elif (validate := self.validators.get(scope["path"])) is not None:
                receive = _replay(validate(await request.body()), receive)
        except ClientDisconnect:
            return
        except HdganError as error:
            refusal = 400, str(error)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await _refuse("a request", *refusal)(scope, receive, send)

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """Status and reason, judged by the headers; None for an acceptable request."""
        limit = self.limits.get(request.scope["path"])
        if limit is None:
            return 404, "the editor has no such address: reload the page"
        length = request.headers.get("content-length", "")
        if "transfer-encoding" in request.headers or not _LENGTH.fullmatch(length):
            return 411, "the length of the request is unknown: send Content-Length"
        if int(length) > limit:
            return 413, f"the request is too large ({int(length)} bytes): send at most {limit} bytes"
        return None


class QuietErrorMiddleware:
    """Reports in one line what Gradio reports as a traceback although it is not a bug.

    This happens when the page of an editor that has ended asks for its events, and when an upload is malformed or does
    not fit on the disk.

    Args:
        app: the application behind it.
        upload: path of upload requests.
    """

    def __init__(self, app: ASGIApp, upload: str) -> None:
        self.app = app
        self.upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if isinstance(error.__cause__, HTTPException):  # its answer had already begun
                print(f"ended a request for {_printable(scope['path'])}: {error.__cause__}", file=sys.stderr)
                await send({"type": "http.response.body", "body": b""})
            elif scope.get("path") == self.upload:
                status = 507 if isinstance(error, OSError) else 400
                reason = f"the file could not be stored ({error}): free space if the disk is full, else try again"
                await _refuse("an upload", status, reason)(scope, receive, send)
            else:
                raise


def _refuse(what: str, status: int, reason: str) -> JSONResponse:
    """Print a refusal and return its answer, whose `detail` the page shows."""
    reason = _printable(reason)
    print(f"refused {what} ({status}): {reason}", file=sys.stderr)
    return JSONResponse({"detail": reason}, status)


def _printable(text: str) -> str:
    """Text that may quote a request, without control characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that starts with a whole body."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
