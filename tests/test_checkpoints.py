"""Finding the checkpoint that a user means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hdgan.checkpoints import (
    MODEL_FILE,
    Best,
    best_step,
    checkpoint_path,
    find_checkpoint,
    is_pretrained,
    list_steps,
    output_beside,
    pretrained_names,
    read_best,
    require_new_checkpoint,
    run_of,
)
from hdgan.errors import CheckpointError, ConfigError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run with checkpoints at 5, 20 and 100, what a killed process left of a fourth, and a folder without model."""
    for step in (100, 5, 20):
        checkpoint_path(tmp_path, step).mkdir(parents=True)
        (checkpoint_path(tmp_path, step) / MODEL_FILE).write_bytes(b"")
    (tmp_path / "checkpoints" / ".step-00000200.x1y2.tmp").mkdir()
    (tmp_path / "checkpoints" / "step-notes").mkdir()
    checkpoint_path(tmp_path, 300).mkdir()
    (tmp_path / "checkpoints" / "best.json").write_text(json.dumps({"step": 20}))
    return tmp_path


def test_steps_are_listed_in_order_of_numbers(saved: Path) -> None:
    assert list_steps(saved) == [5, 20, 100]
    assert list_steps(saved / "nothing") == []


def test_the_run_of_a_checkpoint(saved: Path) -> None:
    assert run_of(checkpoint_path(saved, 20)) == saved
    assert run_of(saved / "step-00000020") is None
    assert run_of(saved / "checkpoints" / "weights") is None


@pytest.mark.parametrize(("which", "step"), [("latest", 100), ("best", 20), ("5", 5), (5, 5)])
def test_a_run_gives_the_checkpoint_that_is_asked_for(saved: Path, which: str | int, step: int) -> None:
    assert find_checkpoint(saved, which) == checkpoint_path(saved, step) / MODEL_FILE


def test_a_checkpoint_folder_and_a_file_stand_for_themselves(saved: Path) -> None:
    folder = checkpoint_path(saved, 20)
    assert find_checkpoint(folder) == folder / MODEL_FILE
    assert find_checkpoint(folder / MODEL_FILE) == folder / MODEL_FILE


def test_what_is_not_there_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 7; it has latest, best, 5, 20, 100"):
        find_checkpoint(saved, 7)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty contains no checkpoint"):
        find_checkpoint(tmp_path / "empty")
    (saved / "checkpoints" / "best.json").unlink()
    assert best_step(saved) is None
    with pytest.raises(CheckpointError, match=r"no checkpoint best"):
        find_checkpoint(saved, "best")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{}",
        "[]",
        '{"step": "x"}',
        '{"step": -1}',
        '{"step": Infinity}',
        '{"step": 1, "val_l1": "x"}',
        "[" * 9999,
    ],
)
def test_a_damaged_best_file_is_named(saved: Path, content: str) -> None:
    (saved / "checkpoints" / "best.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"best\.json(:| is damaged \()"):
        best_step(saved)


def test_what_is_best_by_which_value(saved: Path) -> None:
    (saved / "checkpoints" / "best.json").write_text('{"step": 20, "stage": "joint", "val_l1": 1}')
    assert read_best(saved) == Best(20, "joint", {"val_l1": 1.0})


def test_what_there_is_instead_is_listed(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 7; it has latest, best, 5, 20, 100$"):
        find_checkpoint(saved, 7)
    (saved / "checkpoints" / "best.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint best; it has latest, 5, 20, 100$"):
        find_checkpoint(saved, "best")


def test_only_names_of_steps_are_steps(saved: Path) -> None:
    for name in ("step-7", "step-٠٠٠٠٠٠٠٩", f"step-{'9' * 200}"):
        folder = saved / "checkpoints" / name
        folder.mkdir()
        (folder / MODEL_FILE).write_bytes(b"")
    assert list_steps(saved) == [5, 20, 100]


def test_a_model_of_hdgan_is_found_by_its_name(shipped: Path) -> None:
    assert pretrained_names() == ["demo"]
    assert find_checkpoint(Path("demo")) == shipped
    assert is_pretrained(shipped)
    for other in (Path("models/demo"), Path("demo/model.safetensors"), Path("Demo"), Path("de")):
        with pytest.raises(CheckpointError, match=f"{other} does not exist: .* or demo, which comes with hdgan"):
            find_checkpoint(other)


def test_a_path_takes_precedence_over_a_model_of_hdgan(shipped: Path) -> None:
    own = checkpoint_path(Path("demo"), 7)
    own.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"demo contains no checkpoint.*, or rename the folder to use the model"):
        find_checkpoint(Path("demo"))
    (own / MODEL_FILE).write_bytes(b"")
    assert find_checkpoint(Path("demo")) == own / MODEL_FILE


def test_a_link_to_nothing_takes_precedence_too(shipped: Path) -> None:
    Path("demo").symlink_to("gone")
    with pytest.raises(CheckpointError, match="demo does not exist"):
        find_checkpoint(Path("demo"))


def test_nothing_is_written_beside_a_model_of_hdgan(shipped: Path, tmp_path: Path) -> None:
    assert output_beside(shipped, "edits") == Path("demo.edits")
    assert output_beside(tmp_path / MODEL_FILE, "edits") == tmp_path / "edits"
    assert output_beside(tmp_path / "mine.safetensors", "edits") == tmp_path / "mine.edits"


def test_a_checkpoint_to_write_has_a_new_name_of_our_ending(tmp_path: Path) -> None:
    require_new_checkpoint(tmp_path / "new.safetensors")
    (tmp_path / "old.safetensors").touch()
    with pytest.raises(ConfigError, match=r"old\.safetensors already exists: choose another out, or delete it"):
        require_new_checkpoint(tmp_path / "old.safetensors")
    with pytest.raises(ConfigError, match=r"^out \S+model\.pt must end in \.safetensors"):
        require_new_checkpoint(tmp_path / "model.pt")
