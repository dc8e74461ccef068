"""Scorers of any kind: hdgan's, TorchScript, exported programs; and those that do not suit."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.errors import CheckpointError, ConfigError
from hdgan.metrics.scorer import Scorer, load_scorer
from hdgan.models.segmenter import Segmenter, SegmenterConfig, load_segmenter

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Knows two classes, dark and bright, in images of a given range, at half of their resolution."""

    def __init__(self, middle: float, as_mapping: bool = False) -> None:
        super().__init__()
        self.middle = middle
        self.as_mapping = as_mapping

    def forward(self, image: Tensor) -> Any:
        grey = nn.functional.avg_pool2d(image.mean(1, keepdim=True) - self.middle, 2)
        logits = torch.cat([-grey, grey], 1)
        return {"out": logits} if self.as_mapping else logits


def halves() -> Tensor:
    """[1, 3, 8, 16] in [-1, 1]: left dark, right bright."""
    image = torch.full((1, 3, 8, 16), -0.5)
    image[..., 8:] = 0.5
    return image


def write_script(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(module, torch.zeros(1, 3, 8, 16), strict=False).save(path)
    return path


def write_program(path: Path, module: nn.Module) -> Path:
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 16),)), path)
    return path


Write = Callable[[Path, nn.Module], Path]


@pytest.mark.parametrize(("write", "name"), [(write_script, "s.pt"), (write_program, "s.pt2")])
@pytest.mark.parametrize(("range", "middle"), [("signed", 0.0), ("unit", 0.5), ("imagenet", 0.2)])
def test_a_foreign_scorer_sees_what_it_was_made_for(
    write: Write, name: str, range: Any, middle: float, tmp_path: Path
) -> None:
    file = write(tmp_path / name, Brightness(middle))
    recognised = load_scorer(file, 2, CPU, range)(halves())
    assert recognised.shape == (1, 8, 16)
    assert bool((recognised[..., :7] == 0).all())
    assert bool((recognised[..., 9:] == 1).all())


def test_logits_may_come_in_a_mapping(tmp_path: Path) -> None:
    recognised = Scorer(Brightness(0.0, as_mapping=True), 2, "it")(halves())
    assert recognised[0, 0].tolist() == [0] * 8 + [1] * 8


def test_hdgans_scorer_is_its_network(scorer: Path) -> None:
    loaded = load_scorer(scorer, 4, CPU)
    image = torch.rand(1, 3, 16, 32) * 2 - 1
    assert torch.equal(loaded(image), load_segmenter(scorer)(image).argmax(1))
    assert loaded.segmenter is not None


@pytest.mark.parametrize(("write", "name"), [(write_script, "s.pt"), (write_program, "s.pt2")])
def test_another_number_of_classes_is_one_line(write: Write, name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, Brightness(0.0))
    loaded = load_scorer(file, 9, CPU)
    assert loaded.segmenter is None
    with pytest.raises(ConfigError, match=rf"{name} has 2 classes, but the label maps have 9: give a scorer with 9"):
        loaded(halves())


def test_hdgans_scorer_of_other_classes_or_range_is_refused_at_once(scorer: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.safetensors has 4 classes, but the label maps have 9"):
        load_scorer(scorer, 9, CPU)
    with pytest.raises(ConfigError, match=r"--scorer-range unit applies only to a scorer of your own"):
        load_scorer(scorer, 4, CPU, "unit")


def test_a_size_that_a_program_does_not_take_is_told(tmp_path: Path) -> None:
    loaded = load_scorer(write_program(tmp_path / "s.pt2", Brightness(0.0)), 2, CPU)
    with pytest.raises(ConfigError, match=r"s\.pt2 cannot take an image of 32x16: .*; export it for that size"):
        loaded(torch.zeros(1, 3, 16, 32))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_out_of_memory_is_not_the_fault_of_the_file(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    own = Segmenter(SegmenterConfig(2, width=2))
    monkeypatch.setattr(own, "forward", fail)
    for network in (fail, own):
        with pytest.raises(ConfigError, match=r"out of memory: the scorer it with an image of 16x8; use a smaller --w"):
            Scorer(network, 2, "it")(halves())


def test_a_bug_of_hdgans_own_scorer_is_not_told_as_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Segmenter(SegmenterConfig(2, width=2))
    monkeypatch.setattr(own, "forward", lambda image: image.view(7))
    with pytest.raises(RuntimeError, match="shape") as caught:
        Scorer(own, 2, "it")(halves())
    assert not isinstance(caught.value, ConfigError)


def test_what_returns_no_logits_is_told() -> None:
    with pytest.raises(ConfigError, match=r"the scorer it returns \(1, 8, 16\): it must return logits"):
        Scorer(lambda image: image[:, 0], 2, "it")(halves())
    with pytest.raises(ConfigError, match=r"the scorer it returns list: it must return logits"):
        Scorer(lambda image: [image], 2, "it")(halves())


@pytest.mark.parametrize("name", ["s.pt", "s.pt2"])
def test_files_that_are_no_scorer_are_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist: check the path"):
        load_scorer(tmp_path / name, 2, CPU)
    (tmp_path / name).write_text("nothing of the kind")
    with pytest.raises(CheckpointError, match=r"cannot be read as a scorer \(it is not an archive\): give hdgan's"):
        load_scorer(tmp_path / name, 2, CPU)
    torch.save({"weights": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"cannot be read as a scorer \(.+\): give hdgan's") as caught:
        load_scorer(tmp_path / name, 2, CPU)
    assert "\n" not in str(caught.value)


def test_a_damaged_program_is_one_line_of_the_command(run: Path, tmp_path: Path) -> None:
    """In a process of its own: PyTorch logs to the stderr that was there when it was imported."""
    good = write_program(tmp_path / "good.pt2", Brightness(0.0))
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "empty.pt2", "w") as empty:
        for name in source.namelist():
            empty.writestr(name, b"{}" if name.endswith("model.json") else source.read(name))
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt2")
    script = (
        "import sys; from hdgan.commands.main import main; sys.exit([main(['evaluate', sys.argv[1], '--device', 'cpu', "
    )
    script += "'--scorer', name]) for name in sys.argv[2:]] != [2, 2])"
    files = [str(tmp_path / name) for name in ("empty.pt2", "other.pt2")]
    done = subprocess.run([sys.executable, "-c", script, str(run), *files], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (0, "", 2)
    for line, file in zip(lines, files, strict=True):
        assert line.startswith(f"hdgan: error: {file} cannot be read as a scorer (")
        assert line.endswith("TorchScript")


@pytest.mark.parametrize(("write", "name"), [(write_script, "s.pt"), (write_program, "s.pt2")])
def test_programs_whose_weights_are_not_finite_are_refused(write: Write, name: str, tmp_path: Path) -> None:
    module = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        module.weight[0] = float("inf")
    file = write(tmp_path / name, module)
    with pytest.raises(CheckpointError, match=rf"{name}: weight contains numbers that are NaN or infinite \(3 of 6\)"):
        load_scorer(file, 2, CPU)


def test_a_program_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "s.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s/data/0", bytes(2**22))
    monkeypatch.setenv("HDGAN_MAX_GIB", str(2**-10))
    with pytest.raises(CheckpointError, match=r"s\.pt is an archive of .* more than the limit"):
        load_scorer(tmp_path / "s.pt", 2, CPU)
