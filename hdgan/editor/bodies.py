"""Bounds what a request may bring: its length before anything is read, and its content before anything is done."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hdgan.errors import HdganError

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
_LENGTH = re.compile("[0-9]{1,15}")


class Bodies:
    """ASGI middleware that lets only those requests with a body through that the page sends, of bounded length.

    A browser shows no answer that comes before its request is sent. So what is refused is received all the same, and
    thrown away piece by piece.

    Args:
        app: that it guards.
        limits: most bytes of a body by the path of the request; other paths take none.
        checks: by the path of the request, where its body is small enough to be looked at: called with the whole body,
            returns the one that the app gets, and raises HdganError where it is malformed.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int], checks: Mapping[str, Callable[[bytes], bytes]]) -> None:
        self.app = app
        self.limits = limits
        self.checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        check = self.checks.get(scope["path"])
        if refusal is not None:
            async for _ in _pieces(receive):
                pass
        elif check is not None:
            body = b"".join([piece async for piece in _pieces(receive)])
            try:
                receive = _once(check(body), receive)
            except HdganError as error:
                refusal = 400, str(error)
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, reason = refusal
        reason = _printable(reason)
        print(f"refused a request ({status}): {reason}", file=sys.stderr)
        await JSONResponse({"detail": reason}, status)(scope, receive, send)  # the page shows `detail`

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason, without a look at the body; None for a request that is let through."""
        limit = self.limits.get(scope["path"])
        if limit is None:
            return 404, "the editor takes no such request: reload the page"
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not _LENGTH.fullmatch(length):
            return 411, "the request does not say how long it is: send Content-Length"
        if int(length) > limit:
            return 413, f"the request is too large ({int(length)} bytes): send {limit} bytes at most"
        return None


class Quiet:
    """ASGI middleware that says in one line what Gradio ends with a traceback, though no bug has led to it.

    That is a page of an earlier editor that asks for its events, and an upload that is malformed or for which there is
    no room.

    Args:
        app: that it stands before.
        upload: path of the requests that bring files.
    """

    def __init__(self, app: ASGIApp, upload: str) -> None:
        self.app = app
        self.upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if isinstance(error.__cause__, HTTPException):  # after its answer had begun
                print(f"ended a request for {_printable(scope['path'])}: {error.__cause__}", file=sys.stderr)
                await send({"type": "http.response.body", "body": b""})
            elif scope.get("path") == self.upload:
                status = 507 if isinstance(error, OSError) else 400
                reason = _printable(f"the file was not taken ({error}): free space if the disk is full, else try again")
                print(f"refused an upload ({status}): {reason}", file=sys.stderr)
                await JSONResponse({"detail": reason}, status)(scope, receive, send)
            else:
                raise


def _printable(text: str) -> str:
    """For a terminal, where a text may quote what was sent."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The body of a request, as far as it comes."""
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)


def _once(body: bytes, receive: Receive) -> Receive:
    """A `receive` that begins with a whole body."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def begin() -> Message:
        return messages.pop() if messages else await receive()

    return begin
