"""A small document, and editors of tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hdgan.editor.document import Document
from hdgan.editor.session import Session
from hdgan.editor.studio import Studio, open_studio
from hdgan.families import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import CLASS_MEAN, save_model
from hdgan.inference import Pipeline
from hdgan.styles import Style, Styles

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser

    from .tab import Serve, Tab

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
    """Ground 1 below sky 0, and before them one object of class 2 and one of class 3; only the first has a style."""
    return Document.of(LABEL, IDS, Styles({2000: Style(2, (0.5, -0.5), 1)}, "encoder"))


def write_model(path: Path, **options: object) -> Path:
    """Write a tiny model of four classes that nothing was trained with."""
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


@pytest.fixture(scope="session")
def shared_studio(styled: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Of a run with clusters."""
    return open_studio(styled, device="cpu", out=tmp_path_factory.mktemp("edits"), max_pixels=10_000)


@pytest.fixture
def studio(shared_studio: Studio, tmp_path: Path) -> Studio:
    """The same with a folder of its own."""
    return replace(shared_studio, folder=tmp_path / "edits")


@pytest.fixture
def session(studio: Studio) -> Session:
    """With the first held-out picture open."""
    session = Session(studio)
    session.open_sample(0)
    return session


@pytest.fixture
def pipeline(studio: Studio) -> Pipeline:
    return studio.pipeline


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    from hdgan.editor.app import build, launch

    started: dict[Studio, tuple[gr.Blocks, str]] = {}

    def start(studio: Studio) -> str:
        if studio not in started:
            blocks = build(studio)
            started[studio] = blocks, launch(blocks)
        return started[studio][1]

    yield start
    for blocks, _ in started.values():
        blocks.close(verbose=False)


@pytest.fixture
def tab(browser: Browser, serve: Serve, shared_studio: Studio) -> Iterator[Tab]:
    """With the first held-out picture open."""
    from .tab import Tab

    tab = Tab(browser, serve(shared_studio))
    yield tab
    assert tab.errors == []
    assert tab.elsewhere == []
    tab.page.context.close()
