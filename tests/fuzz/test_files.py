"""Whatever is in a file that somebody else may have written: it is read, or refused in one of hdgan's own errors.

Each reader gets damaged versions of a file that it can read. `HDGAN_FUZZ=20000 pytest tests/fuzz` takes so many of
each, chosen anew; without it a few are tried, always the same.
"""

from __future__ import annotations

import io
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from hdgan.checkpoints import best_step
from hdgan.commands.convert import convert
from hdgan.data import DataConfig, find_pairs
from hdgan.data.headers import read_header
from hdgan.data.images import read_input, read_map, read_photo
from hdgan.data.inspection import check_dataset
from hdgan.data.pack import pack_dataset
from hdgan.errors import HdganError
from hdgan.inference import load
from hdgan.interop import nvidia
from hdgan.interop.nvidia.clusters import read_nvidia, write_nvidia
from hdgan.models import GlobalGenerator
from hdgan.models.segmenter import Segmenter, SegmenterConfig, load_segmenter, save_segmenter
from hdgan.reproduce.results import load_requested, read_results
from hdgan.styles.bank import StyleBank
from hdgan.styles.sample import Styles
from hdgan.styles.table import FeatureTable
from hdgan.training.checkpoint import read_training_state
from hdgan.training.report import write_report
from hdgan.training.run_folder import load_config
from tests.fuzz import damage

EXAMPLES = int(os.environ.get("HDGAN_FUZZ", "0"))
EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
Damaged = Callable[[bytes], st.SearchStrategy[bytes]]
Reader = Callable[[Path], object]


def tries(few: int) -> Callable[[Any], Any]:
    """Settings of a property: the same few examples in every run, or many that differ."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate) if not EXAMPLES else tuple(Phase),
        suppress_health_check=list(HealthCheck),
    )


def require_read_or_refused(reader: Reader, path: Path, content: bytes) -> None:
    """Fail on any exception but hdgan's own, and on messages that are not one line of text that can be printed."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader(path)
        except HdganError as error:
            text = str(error)
            assert text
            assert len(text) < 5000
            assert "bug" not in text


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def array_file(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


RNG = np.random.default_rng(0)
GREY, COLOUR = (RNG.integers(0, 256, shape).astype(np.uint8) for shape in ((9, 7), (9, 7, 3)))
PALETTE = Image.fromarray(GREY % 4).convert("P")
PICTURES: dict[str, tuple[bytes, Damaged]] = {
    "grey.png": (encoded(Image.fromarray(GREY), "PNG"), damage.damaged_png),
    "wide.png": (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), damage.damaged_png),
    "palette.png": (encoded(PALETTE, "PNG", bits=4, transparency=0), damage.damaged_png),
    "colour.jpg": (encoded(Image.fromarray(COLOUR), "JPEG"), damage.damaged_bytes),
    "grey.tif": (encoded(Image.fromarray(GREY), "TIFF"), damage.damaged_bytes),
    "packed.tif": (encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"), damage.damaged_bytes),
    "colour.bmp": (encoded(Image.fromarray(COLOUR), "BMP"), damage.damaged_bytes),
    "colour.webp": (encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), damage.damaged_bytes),
    "grey.pgm": (encoded(Image.fromarray(GREY), "PPM"), damage.damaged_bytes),
    "ids.npy": (array_file(GREY.astype(np.int32)), damage.damaged_bytes),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, tmp_path: Path) -> None:
    content, damaged = PICTURES[name]
    readers: list[Reader] = [read_header, read_map, read_photo, read_input]

    @tries(25)
    @given(damaged(content))
    def holds(content: bytes) -> None:
        for reader in readers:
            require_read_or_refused(reader, tmp_path / name, content)

    holds()


@pytest.fixture(scope="module")
def files(styled: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind that is read, by name."""
    folder = tmp_path_factory.mktemp("files")
    checkpoint = max((styled / "checkpoints").glob("step-*"))
    bank = StyleBank.load(checkpoint / "styles.safetensors")
    write_nvidia(bank, folder / "clusters.npy")
    label = next(iter(bank.clusters))
    Styles({label * 1000: bank.style(label, 0)}, bank.origin.encoder).save(folder / "style.json")
    torch.save(nvidia.to_state_dict(GlobalGenerator(5, 3, 8, 2, 1)), folder / "latest_net_G.pth")
    save_segmenter(folder / "scorer.safetensors", Segmenter(SegmenterConfig(4, width=2)))
    (folder / "opt.txt").write_text("".join(f"{name}: {value}\n" for name, value in OPTIONS.items()))
    pack_dataset(DataConfig(root=dataset), folder / "packed")
    return {
        "model": checkpoint / "model.safetensors",
        "training": checkpoint / "training.pt",
        "features": checkpoint / "features.npz",
        "bank": checkpoint / "styles.safetensors",
        "config": styled / "config.json",
        "metrics": styled / "metrics.jsonl",
        "best": styled / "checkpoints" / "best.json",
        "clusters": folder / "clusters.npy",
        "style": folder / "style.json",
        "pth": folder / "latest_net_G.pth",
        "options": folder / "opt.txt",
        "scorer": folder / "scorer.safetensors",
        "index": folder / "packed" / "packed.json",
        "sample": next((folder / "packed").rglob("*.safetensors")),
        "csv": EVIDENCE / "small.csv",
        "wanted": EVIDENCE / "small.json",
    }


OPTIONS = {"label_nc": 4, "no_instance": False, "ngf": 8, "netG": "global", "instance_feat": False, "norm": "instance"}
"""As opt.txt of NVIDIA's code has them."""
READERS: dict[str, tuple[str, Damaged, Callable[[Path], Reader]]] = {
    # name: the file's name where it is read, how it is damaged, and the reader in that folder
    "model": ("m.safetensors", damage.damaged_safetensors, lambda folder: lambda file: load(file, device="cpu")),
    "training": ("training.pt", damage.damaged_zip, lambda folder: lambda file: read_training_state(folder)),
    "features": ("features.npz", damage.damaged_zip, lambda folder: FeatureTable.load),
    "bank": ("styles.safetensors", damage.damaged_safetensors, lambda folder: StyleBank.load),
    "config": ("config.json", damage.damaged_json, lambda folder: lambda file: load_config(folder)),
    "best": ("checkpoints/best.json", damage.damaged_json, lambda folder: lambda file: best_step(folder)),
    "clusters": ("clusters.npy", damage.damaged_bytes, lambda folder: read_nvidia),
    "style": ("style.json", damage.damaged_json, lambda folder: Styles.load),
    "pth": ("latest_net_G.pth", damage.damaged_zip, lambda folder: lambda file: _converted(file, folder)),
    "options": (
        "opt.txt",
        lambda content: damage.damaged_lines(content, b": "),
        lambda folder: lambda file: _converted(folder, folder),
    ),
    "scorer": ("scorer.safetensors", damage.damaged_safetensors, lambda folder: load_segmenter),
    "csv": ("small.csv", damage.damaged_lines, lambda folder: read_results),
    "wanted": ("small.json", damage.damaged_json, lambda folder: lambda file: load_requested(folder / "small.csv")),
}


def _converted(source: Path, folder: Path) -> None:
    convert(source, out := folder / "out.safetensors")
    out.unlink()


@pytest.mark.parametrize("name", READERS)
def test_readers(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    at, damaged, reader_in = READERS[name]
    content = files[name].read_bytes()
    path = tmp_path / at
    path.parent.mkdir(exist_ok=True)
    if name == "options":
        shutil.copy(files["pth"], tmp_path)
    reader = reader_in(tmp_path)
    path.write_bytes(content)
    reader(path)

    @tries(25)
    @given(damaged(content) | damage.damaged_bytes(content))
    def holds(content: bytes) -> None:
        require_read_or_refused(reader, path, content)

    holds()


def test_reports(files: dict[str, Path], tmp_path: Path) -> None:
    run = files["config"].parent
    shutil.copytree(run, copy := tmp_path / "run", ignore=shutil.ignore_patterns("step-*", "samples"))
    content = files["metrics"].read_bytes()
    damaged = damage.damaged_lines(content, b":") | damage.damaged_bytes(content)

    @tries(8)
    @given(damaged)
    def holds(content: bytes) -> None:
        require_read_or_refused(lambda file: write_report(copy), copy / "metrics.jsonl", content)

    holds()


@pytest.mark.parametrize("name", ["index", "sample"])
def test_packed_data(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Reading, checking and packing again; what lies beside the packed folder is as it was."""
    root = tmp_path / "packed"
    shutil.copytree(files["index"].parent, root)
    beside = tmp_path / "beside.safetensors"
    beside.write_bytes(b"kept")
    path = root / files[name].relative_to(files["index"].parent)
    content = path.read_bytes()
    damaged = damage.damaged_json(content) if name == "index" else damage.damaged_safetensors(content)

    def reader(file: Path) -> None:
        check_dataset(DataConfig(root=root))
        find_pairs(DataConfig(root=root), "train")

    @tries(25)
    @given(damaged | damage.damaged_bytes(content))
    def holds(content: bytes) -> None:
        require_read_or_refused(reader, path, content)
        assert beside.read_bytes() == b"kept"

    holds()
