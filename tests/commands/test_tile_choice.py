"""`hdgan generate` in tiles: the same images, pyramids, and a clear word where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hdgan.commands.tile_choice import TileChoice
from hdgan.data import read_map
from hdgan.errors import ConfigError
from hdgan.files.slides import has_slides
from hdgan.inference import load
from tests.commands.test_generate import Capture, generate, pixels, refused

SLIDES = pytest.mark.skipif(not has_slides("tifffile"), reason="needs tifffile")
ZARR = pytest.mark.skipif(not has_slides("zarr"), reason="needs zarr")


def maps_of(dataset: Path) -> tuple[Path, Path, Path]:
    label, ids, photo = ("test_label/s0_label.png", "test_inst/s0_inst.tif", "test_img/s0_img.png")
    return dataset / label, dataset / ids, dataset / photo


@pytest.mark.parametrize("options", [("--tile", 32), ("--max-memory", "16GB")])
def test_images_are_those_of_the_whole_maps(
    options: tuple[str, object], styled: Path, dataset: Path, tmp_path: Path
) -> None:
    label, ids, photo = maps_of(dataset)
    common = ("--label", label, "--instance", ids)
    for name, more in (("mean", ()), ("photo", ("--photo", photo)), ("random", ("--styles", "random"))):
        assert generate(styled, *common, *more, "--out", tmp_path / f"{name}-whole.png") == 0
        assert generate(styled, *common, *more, "--out", tmp_path / f"{name}.png", *options) == 0
        made, whole = pixels(tmp_path / f"{name}.png"), pixels(tmp_path / f"{name}-whole.png")
        np.testing.assert_allclose(made, whole, atol=1)


def test_folders_variants_and_styles(styled: Path, dataset: Path, tmp_path: Path) -> None:
    folders = ("--label", dataset / "test_label", "--instance", dataset / "test_inst")
    more = ("--styles", "random", "--variants", 2, "--save-styles", "--seed", 3)
    assert generate(styled, *folders, *more, "--out", tmp_path / "whole") == 0
    assert generate(styled, *folders, *more, "--out", tmp_path / "tiles", "--tile", 32) == 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "tiles").iterdir())
    for name in names:
        made, whole = tmp_path / "tiles" / name, tmp_path / "whole" / name
        if name.endswith(".json"):
            assert json.loads(made.read_text()) == json.loads(whole.read_text())
        else:
            np.testing.assert_allclose(pixels(made), pixels(whole), atol=1)


@SLIDES
def test_slides_become_pyramids(styled: Path, dataset: Path, tmp_path: Path) -> None:
    import tifffile

    label, ids, _ = maps_of(dataset)
    large, large_ids = (np.tile(read_map(path), (48, 32)) for path in (label, ids))
    for name, values in (("label.tif", large), ("ids.tif", large_ids)):
        tifffile.imwrite(tmp_path / name, values, tile=(64, 64), compression="deflate")
    out = tmp_path / "out"
    given = ("--label", tmp_path / "label.tif", "--instance", tmp_path / "ids.tif")
    assert generate(styled, *given, "--out", out, "--pyramid", "--variants", 2, "--styles", "random") == 0
    assert sorted(path.name for path in out.iterdir()) == ["label_1.ome.tif", "label_2.ome.tif"]
    with tifffile.TiffFile(out / "label_1.ome.tif") as file:
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(768, 1024, 3), (384, 512, 3)]
        made = levels[0].asarray()
    pipeline = load(styled, device="cpu")
    maps = pipeline.read(large, large_ids)
    whole = pipeline(maps, styles=pipeline.bank.sample(pipeline.instances(maps), 0, 0, "instance"), seed=0)
    np.testing.assert_allclose(made, (whole.permute(1, 2, 0) * 255).numpy(), atol=1.5)


@ZARR
def test_zarr_is_read_in_tiles_only(run: Path, dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    import zarr

    label, ids, _ = maps_of(dataset)
    for name, path in (("label.zarr", label), ("ids.zarr", ids)):
        zarr.save(str(tmp_path / name), read_map(path))
    given = ("--label", tmp_path / "label.zarr", "--instance", tmp_path / "ids.zarr", "--out", tmp_path / "x.png")
    assert "label.zarr is zarr, which is only read in tiles: add --max-memory 4GB" in refused(capsys, run, *given)
    assert generate(run, *given, "--max-memory", "16GB") == 0
    assert generate(run, "--label", label, "--instance", ids, "--out", tmp_path / "y.png") == 0
    np.testing.assert_allclose(pixels(tmp_path / "x.png"), pixels(tmp_path / "y.png"), atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile", 8), "tile"),
        (("--max-memory", "4"), "--max-memory is 4: give a number with its unit, such as 4GB or 800MiB"),
        (("--max-memory", "lots"), "--max-memory is lots"),
        (("--max-memory", "1MB"), "does not suffice: the program and the model take"),
        (("--tile", 64, "--scratch", "nowhere"), "--scratch nowhere is not a folder: give one that exists"),
        (("--tile", 64, "--batch-size", 2), "--batch-size 2 has no effect on images that are made in tiles"),
        (("--tile", 64, "--out", "x.tif"), "images are written as PNG"),
        (("--pyramid", "--out", "x.png"), "images are written as TIFF"),
    ],
)
def test_options_that_cannot_be(
    options: tuple[object, ...], message: str, run: Path, dataset: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    label, ids, _ = maps_of(dataset)
    out = () if "--out" in options else ("--out", "x.png")
    assert message in refused(capsys, run, "--label", label, "--instance", ids, *out, *options)
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_no_png_need_a_pyramid(stored_run: Path, tmp_path: Path, capsys: Capture) -> None:
    data = stored_run.parent / "data"
    given = ("--label", data / "test_label/s0_label.png", "--instance", data / "test_inst/s0_inst.tif")
    if next((data / "test_img").iterdir()).suffix == ".png":
        assert generate(stored_run, *given, "--out", tmp_path / "x.png", "--tile", 64) == 0
        return
    message = refused(capsys, stored_run, *given, "--out", tmp_path / "o", "--tile", 64)
    assert "are no PNG, and tiles give PNG or pyramids: add --pyramid" in message


@pytest.mark.parametrize(
    ("text", "expected"), [("4GB", 4e9), ("800MiB", 800 * 2**20), ("1.5 gib", 1.5 * 2**30), ("2tb", 2e12)]
)
def test_memory_has_a_unit(text: str, expected: float) -> None:
    assert TileChoice(max_memory=text).bytes == expected


def test_choice_without_options_changes_nothing() -> None:
    assert not TileChoice().is_used
    assert TileChoice().bytes == 4 * 10**9
    with pytest.raises(ConfigError):
        TileChoice(max_memory="0x10GB").check()
