"""The server's start, without a browser."""

from __future__ import annotations

import gradio as gr
import pytest

from hdgan.editor.web.app import launch
from hdgan.errors import HdganError


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://[::1]:9"])
def test_a_proxy_before_this_machine_names_the_remedy(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML()
    with pytest.raises(HdganError, match=r"set NO_PROXY=127\.0\.0\.1,localhost"):
        launch(blocks, 100)


def test_gradios_own_complaint_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML()
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    with pytest.raises(HdganError, match=r"localhost is not accessible.*set NO_PROXY"):
        launch(blocks, 100)


@pytest.mark.parametrize("host", ["x" * 300, "/no/address"])
def test_invalid_addresses_are_refused(host: str) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML()
    with pytest.raises(HdganError, match="is not an address to listen on: give 127"):
        launch(blocks, 100, host)
