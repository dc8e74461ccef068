"""`hdgan generate` of many images: what it leaves out, where it stops, what it imports, and several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.commands.main import main
from hdgan.commands.process import INTERRUPTED
from hdgan.commands.sources import SizeNote
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline
from tests.sharding.several import end_all, start_all

Capture = pytest.CaptureFixture[str]
NEVER_IMPORTED = (
    "gradio", "huggingface_hub", "jinja2", "lpips", "matplotlib", "mlflow", "onnxruntime", "pandas", "scipy",
    "sklearn", "sympy", "tensorboard", "timm", "torch._dynamo", "torch._inductor", "torchmetrics", "torchvision",
    "triton", "wandb",
)  # fmt: skip
"""What takes long to import, and no image needs."""


def generate(*arguments: object) -> int:
    return main(["generate", *map(str, arguments), "--device", "cpu"])


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


@pytest.fixture
def maps(make_data: Callable[..., Path]) -> tuple[object, ...]:
    """The options for four pairs of maps, of which the third is smaller than the others."""
    root = make_data(test=4, size=(32, 16))
    small = make_data("small", test=3, size=(28, 16))
    for kind, ending in (("label", "png"), ("inst", "tif")):
        name = f"test_{kind}/s2_{kind}.{ending}"
        (small / name).replace(root / name)
    return "--label", root / "test_label", "--instance", root / "test_inst"


def damage(maps: tuple[object, ...], stem: str) -> Path:
    """Give one of the maps a label that the model does not know."""
    file = Path(str(maps[1])) / f"{stem}_label.png"
    with Image.open(file) as image:
        Image.new("L", image.size, 200).save(file)
    return file


def test_batches_change_images_by_rounding(run: Path, maps: tuple[object, ...], tmp_path: Path) -> None:
    for size in (1, 3):
        assert generate(run, *maps, "--out", tmp_path / str(size), "--batch-size", size) == 0
    assert sorted(images(tmp_path / "3")) == [f"s{k}.png" for k in range(4)]
    for name in images(tmp_path / "1"):
        one, many = (np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in "13")
        np.testing.assert_allclose(one, many, atol=1)


def test_images_that_are_there_are_left_out_on_request(
    run: Path, maps: tuple[object, ...], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    options = (run, *maps, "--out", out, "--save-styles")
    assert generate(*options) == 0
    expected = images(out)
    (out / "s0.png").unlink()
    (out / "s1.json").unlink()
    (out / "s2.png").write_bytes(b"mine")
    capsys.readouterr()
    assert generate(*options, "--skip-existing") == 0
    assert "2 images left out, which were there" in capsys.readouterr().err
    assert images(out) == expected | {"s2.png": b"mine"}
    assert (out / "s1.json").is_file()
    assert generate(*options) == 0
    assert images(out) == expected
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize("stem", ["s0", "s2"])
def test_a_map_that_cannot_be_used_stops_the_command_after_the_images_before_it(
    run: Path, maps: tuple[object, ...], tmp_path: Path, capsys: Capture, stem: str
) -> None:
    file, before = damage(maps, stem), int(stem[1])
    assert generate(run, *maps, "--out", tmp_path / "out") == 2
    *lines, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"hdgan: error: {file} contains label 200")
    assert sorted(images(tmp_path / "out")) == [f"s{k}.png" for k in range(before)]
    stopped = f"stopped after {before} of 4 images, which are complete: repeat the command with --skip-existing"
    assert [line.startswith(stopped) for line in lines] == [True] * bool(before)


def test_images_that_are_being_written_at_an_interruption_are_counted(
    run: Path, maps: tuple[object, ...], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(note: SizeNote, maps: Maps) -> None:
        raise KeyboardInterrupt

    def save_slowly(pipeline: Pipeline, image: torch.Tensor, path: Path) -> None:
        time.sleep(0.3 if path.stem != "s0" else 0)
        save_image(pipeline, image, path)

    save_image = Pipeline.save_image
    monkeypatch.setattr(SizeNote, "compare", interrupt)
    monkeypatch.setattr(Pipeline, "save_image", save_slowly)
    assert generate(run, *maps, "--out", tmp_path / "out") == INTERRUPTED
    written = len(images(tmp_path / "out"))
    assert written > 1
    assert f"stopped after {written} of 4 images, which are complete" in capsys.readouterr().err


def test_what_is_wrong_with_the_batch_size_is_told_before_any_work(
    run: Path, shipped: Path, tmp_path: Path, capsys: Capture
) -> None:
    for size, text in ((0, "--batch-size is 0: give a whole number from 1"), (10**6, "--batch-size is 1000000")):
        assert generate("demo", "--scenes", 2, "--out", "x", "--batch-size", size) == 2
        assert text in capsys.readouterr().err
    assert not Path("x").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupted_command_leaves_whole_images_and_says_how_many(
    run: Path, make_data: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = make_data(test=2, size=(32, 16)), tmp_path / "out"
    maps = ("--label", str(root / "test_label"), "--instance", str(root / "test_inst"))
    many = ("--styles", "mean", "--out", str(out), "--device", "cpu")
    command = [sys.executable, "-m", "hdgan", "generate", str(run), *maps, *many]
    labels = sorted((root / "test_label").iterdir())
    for number in range(600):
        for kind, ending in (("label", "png"), ("inst", "tif")):
            link = root / f"test_{kind}" / f"x{number}_{kind}.{ending}"
            link.hardlink_to(labels[0].parents[1] / f"test_{kind}" / f"s0_{kind}.{ending}")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(list(out.glob("*.png"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == INTERRUPTED
    written = list(out.iterdir())
    assert {path.suffix for path in written} == {".png"}
    assert 5 <= len(written) < 602
    assert f"stopped after {len(written)} of 602 images, which are complete" in err
    assert err.endswith("hdgan: interrupted\n")
    for path in written:
        with Image.open(path) as image:
            assert np.asarray(image).shape == (16, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_several_processes_write_the_files_of_one(
    run: Path, maps: tuple[object, ...], tmp_path: Path, batch_size: int
) -> None:
    def arguments(out: str) -> list[str]:
        options = [*maps, "--out", tmp_path / out, "--batch-size", batch_size, "--device", "cpu", "--save-styles"]
        return ["-m", "hdgan", "generate", str(run), *map(str, options)]

    codes, outputs = end_all(start_all(2, arguments("two")))
    assert codes == [0, 0], outputs
    assert ["4 images in " in output for output in outputs] == [True, False]
    assert main([*arguments("one")[2:]]) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert len(one) == 8
    assert one == two


@pytest.mark.slow
def test_an_error_of_one_process_is_told_once(run: Path, maps: tuple[object, ...], tmp_path: Path) -> None:
    file = damage(maps, "s1")
    options = ["-m", "hdgan", "generate", str(run), *map(str, maps), "--out", str(tmp_path / "out"), "--device", "cpu"]
    codes, outputs = end_all(start_all(2, options))
    assert codes == [2, 2]
    assert sum(output.count(f"{file} contains label 200") for output in outputs) == 1, outputs


def test_only_what_images_need_is_imported(tmp_path: Path) -> None:
    """The model that comes with hdgan has all parts: features, noise and an encoder."""
    root = tmp_path / "maps"
    for kind in ("label", "inst"):
        (root / kind).mkdir(parents=True)
        Image.new("L", (32, 16), 1).save(root / kind / "a.png")
    arguments = ["generate", "demo", "--label", root / "label", "--instance", root / "inst", "--out", tmp_path / "out"]
    program = (
        "import json, sys; from hdgan.commands.main import main; status = main(sys.argv[1:]); "
        f"print(json.dumps([status, sorted({set(NEVER_IMPORTED)!r} & sys.modules.keys())]))"
    )
    command = [sys.executable, "-c", program, *map(str, arguments), "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert json.loads(result.stdout) == [0, []], result.stderr
