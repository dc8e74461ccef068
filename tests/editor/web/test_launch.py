"""The start of the server, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.editor.context import EditorContext
from hdgan.editor.web.app import launch
from hdgan.errors import HdganError

from ..conftest import open_run


@pytest.fixture
def plain_context(plain: Path) -> EditorContext:
    return open_run(plain)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://[::1]:9"])
def test_a_proxy_before_this_machine_names_the_remedy(
    plain_context: EditorContext, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(HdganError, match=r"set NO_PROXY=127\.0\.0\.1,localhost"):
        launch(plain_context)


def test_gradios_own_error_names_the_remedy_too(plain_context: EditorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    with pytest.raises(HdganError, match=r"localhost is not accessible.*set NO_PROXY"):
        launch(plain_context)
