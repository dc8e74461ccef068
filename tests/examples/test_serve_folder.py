"""The example that serves a folder: pictures of whole maps only, each once, until Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hdgan
from hdgan.errors import ConfigError, HdganError
from hdgan.scenes import Scene


@pytest.fixture
def _sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Sleeps:
    """Takes the place of `time.sleep`: does one thing after the other between two looks at the folder."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = iter(steps)

    def __call__(self, seconds: float) -> None:
        next(self.steps)()


@pytest.mark.usefixtures("_sigterm")
def test_maps_that_come_one_after_another(
    example: Callable[[str], Any],
    scene: Scene,
    write_maps: Callable[[Path, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = example("serve_folder")
    labels, instances, out = (tmp_path / name for name in ("labels", "instances", "out"))
    write_maps(labels / "a.png", instances / "a.png")
    whole = (labels / "a.png").read_bytes()

    def pictures() -> list[str]:
        return sorted(file.name for file in out.glob("*"))

    def begin_to_write() -> None:
        (labels / "b.png").write_bytes(whole[:100])
        (instances / "b.png").write_bytes((instances / "a.png").read_bytes())

    def write_more() -> None:
        assert pictures() == ["a.png"]
        (labels / "b.png").write_bytes(whole[:150])

    def finish() -> None:
        (labels / "b.png").write_bytes(whole)
        (labels / "c.png").write_bytes(whole)  # without instance map
        (labels / ".d.png").write_bytes(whole)

    def stop() -> None:
        assert pictures() == ["a.png", "b.png"]
        signal.raise_signal(signal.SIGTERM)

    nothing = str
    steps = [nothing, begin_to_write, write_more, nothing, finish, nothing, nothing, stop]
    monkeypatch.setattr(module.time, "sleep", Sleeps(*steps))
    with pytest.raises(KeyboardInterrupt):
        module.main(labels, out, instances)
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / "a.png"), str(out / "b.png")]
    assert printed.err.count("left out: ") == 1
    assert f"{labels / 'b.png'} cannot be read" in printed.err
    with Image.open(out / "b.png") as image:
        made = np.asarray(image)
    expected = hdgan.load("demo")(scene.label, scene.ids, seed=0).permute(1, 2, 0).cpu().numpy() * 255
    assert np.abs(made - expected).max() < 1

    # A restart makes what is missing, or older than its maps.
    (out / "b.png").unlink()
    times = (out / "a.png").stat().st_mtime_ns
    monkeypatch.setattr(module.time, "sleep", Sleeps(nothing, nothing))
    module.main(labels, out, instances, once=True)
    assert pictures() == ["a.png", "b.png"]
    assert (out / "a.png").stat().st_mtime_ns == times


def test_folders_that_cannot_be_served(example: Callable[[str], Any], tmp_path: Path) -> None:
    module = example("serve_folder")
    with pytest.raises(ConfigError, match="nowhere is not a folder of maps alone"):
        module.main(tmp_path / "nowhere", tmp_path / "out", once=True)
    with pytest.raises(ConfigError, match="give one that exists and is not --out"):
        module.main(tmp_path, tmp_path / "x" / "..", once=True)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(HdganError, match="nowhere is not a folder of maps alone"):
        module.main(tmp_path / "nowhere", tmp_path / "loop" / "out", once=True)
