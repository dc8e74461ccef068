"""A small document, and editor contexts with tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hdgan.editor.context import EditorContext, open_context
from hdgan.editor.document import Document
from hdgan.editor.session import Session
from hdgan.families import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import CLASS_MEAN, save_model
from hdgan.inference import Pipeline, load
from hdgan.styles import Style, Styles

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser

    from .browser_tab import Serve, Tab

LABEL = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [0, 2, 2, 0, 3, 0],
        [1, 2, 2, 1, 3, 1],
        [1, 1, 1, 1, 1, 1],
    ]
)
IDS = np.where(LABEL == 2, 2000, np.where(LABEL == 3, 3000, LABEL))


@pytest.fixture
def document() -> Document:
    """Ground 1 below sky 0, with an object of class 2 and one of class 3 on top. Only the first has a style."""
    return Document.of(LABEL, IDS, Styles({2000: Style(2, (0.5, -0.5), 1)}, "encoder"))


def write_model(path: Path, **options: object) -> Path:
    """Write a tiny untrained model of four classes."""
    torch.manual_seed(0)
    config = Pix2PixHDConfig(
        n_labels=options.pop("n_labels", 4),  # type: ignore[arg-type]
        generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1),
        discriminator=DiscriminatorConfig(ndf=4, n_layers=2),
        encoder=EncoderConfig(nef=2, n_downsample=1),
        **options,  # type: ignore[arg-type]
    )
    means = torch.zeros(max(config.n_labels, 1), config.feature_channels)
    save_model(path, Pix2PixHD(config), tensors={CLASS_MEAN: means} if config.feature_channels else None)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A model without features, as a file."""
    return write_model(tmp_path / "plain.safetensors")


def open_run(path: Path, **options: Path) -> EditorContext:
    """Open a run, a checkpoint or a model file for editing."""
    return open_context(load(path, device="cpu"), 10_000, **options)


@pytest.fixture(scope="session")
def shared_context(styled: Path, tmp_path_factory: pytest.TempPathFactory) -> EditorContext:
    """The context of a run with clusters."""
    return open_run(styled, out=tmp_path_factory.mktemp("edits"))


@pytest.fixture
def context(shared_context: EditorContext, tmp_path: Path) -> EditorContext:
    """The same context with its own output folder."""
    return replace(shared_context, folder=tmp_path / "edits")


@pytest.fixture
def previewing(context: EditorContext, monkeypatch: pytest.MonkeyPatch) -> EditorContext:
    """The same context with previews of edits of any size."""
    monkeypatch.setattr("hdgan.editor.renderer.MOST_SHARE", 1)
    return replace(context, preview_memory=2**31)


@pytest.fixture
def session(context: EditorContext) -> Session:
    """A session with the first held-out sample open."""
    session = Session(context)
    session.open_sample(0)
    return session


@pytest.fixture
def pipeline(context: EditorContext) -> Pipeline:
    return context.pipeline


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    from hdgan.editor.web.app import launch

    started: dict[EditorContext, tuple[gr.Blocks, str]] = {}

    def start(context: EditorContext) -> str:
        if context not in started:
            started[context] = launch(context)
        return started[context][1]

    yield start
    for page, _ in started.values():
        page.close(verbose=False)


@pytest.fixture
def tab(browser: Browser, serve: Serve, shared_context: EditorContext) -> Iterator[Tab]:
    """A tab with the first held-out sample open."""
    from .browser_tab import Tab

    tab = Tab(browser, serve(shared_context))
    yield tab
    assert tab.errors == []
    assert tab.elsewhere == []
    tab.page.context.close()
