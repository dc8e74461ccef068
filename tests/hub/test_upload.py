"""Commits to the hub: all of a folder or nothing, and only where a model belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from hdgan.checkpoints import MODEL_FILE
from hdgan.errors import ConfigError, HdganError
from hdgan.hub import Destination, open_destination
from tests.hub.stand_in import HubState

OURS = save({"x": torch.zeros(3)}, {"hdgan": "{}"})
"""A file of hdgan, as far as the hub can see."""
THEIRS = save({"x": torch.zeros(3)})
NEW = {MODEL_FILE: OURS, "README.md": b"new", "samples/1.png": b"picture"}
OLD = {MODEL_FILE: OURS, "styles.safetensors": OURS, "samples/7.png": b"old", "LICENSE": b"mine"}
REPLACED = ("styles.safetensors", "samples/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is pushed."""
    (tmp_path / "new" / "samples").mkdir(parents=True)
    for name, content in NEW.items():
        (tmp_path / "new" / name).write_bytes(content)
    return tmp_path / "new"


def opened(name: str, **options: object) -> Destination:
    return open_destination(name, MODEL_FILE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("private", [False, True])
def test_a_new_repository_gets_one_commit(hub: HubState, folder: Path, private: bool) -> None:
    destination = opened("jane/streets", private=private)
    assert hub.models == {}
    pushed = destination.push(folder, "the first")
    model = hub.models["jane/streets"]
    assert (pushed.url, pushed.commit) == (f"{hub.url}/jane/streets", model.branches["main"])
    assert model.private is private
    assert model.files() == {**NEW, ".gitattributes": model.files()[".gitattributes"]}
    assert [*model.messages.values()] == ["", "the first"]


def test_a_model_is_replaced_and_the_rest_stays(hub: HubState, folder: Path) -> None:
    model = hub.add("jane/streets", OLD)
    first = model.branches["main"]
    opened("jane/streets").push(folder, "the second", REPLACED)
    assert model.files() == {**NEW, "LICENSE": b"mine"}
    assert model.files(first) == OLD
    assert len(model.commits) == 2


def test_a_branch_is_made_from_main(hub: HubState, folder: Path) -> None:
    model = hub.add("jane/streets", OLD)
    first = model.branches["main"]
    pushed = opened("jane/streets", branch="small").push(folder, "small", REPLACED)
    assert (pushed.url, pushed.commit) == (f"{hub.url}/jane/streets/tree/small", model.branches["small"])
    assert model.branches["main"] == first
    assert model.files("small") == {**NEW, "LICENSE": b"mine"}
    opened("jane/new", branch="small").push(folder, "small")
    assert hub.models["jane/new"].files("small").keys() == {*NEW, ".gitattributes"}
    assert hub.models["jane/new"].files().keys() == {".gitattributes"}


def test_what_has_not_changed_makes_no_commit(hub: HubState, folder: Path) -> None:
    first = opened("jane/streets").push(folder, "one")
    assert opened("jane/streets").push(folder, "two") == first


@pytest.mark.parametrize("at", ["/commit/", "PUT /lfs", "/preupload/", "/objects/batch"])
def test_a_push_that_fails_leaves_the_repository_as_it_was(
    hub: HubState, folder: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # before the library tries again
    model = hub.add("jane/streets", OLD)
    (folder / MODEL_FILE).write_bytes(save({"x": torch.ones(5)}, {"hdgan": "{}"}))
    hub.failing = at
    with pytest.raises(
        HdganError, match=r"^the push to hf:jane/streets did not end, since \S+ is out of order .*500\)"
    ):
        opened("jane/streets").push(folder, "never", REPLACED)
    assert model.files() == OLD
    with pytest.raises(HdganError, match=r"; the new repository jane/other remains, without a model$"):
        opened("jane/other").push(folder, "never")
    hub.failing = None
    opened("jane/other").push(folder, "at last")
    assert hub.models["jane/other"].files().keys() == {*NEW, ".gitattributes"}


def test_a_commit_of_somebody_else_in_between_is_not_replaced(hub: HubState, folder: Path) -> None:
    model = hub.add("jane/streets", OLD)
    destination = opened("jane/streets")
    theirs = model.commit("main", {**OLD, "theirs": b""})
    with pytest.raises(HdganError, match=r"^nothing was pushed: .*\(status 412: A commit has happened since"):
        destination.push(folder, "mine")
    assert model.branches["main"] == theirs


def test_what_holds_no_model_is_refused_unless_asked(hub: HubState, folder: Path) -> None:
    hub.add("jane/words", {"pytorch_model.bin": b"", "config.json": b"", "README.md": b""})
    hub.add("jane/theirs", {MODEL_FILE: THEIRS})
    hub.add("jane/begun", {"README.md": b"", ".gitattributes": b"", "LICENSE": b""})
    for name, found in (("jane/words", "README.md, config.json, pytorch_model.bin"), ("jane/theirs", MODEL_FILE)):
        match = f"hf:{name} holds no model of hdgan but has {found}: choose another name, or add --overwrite"
        with pytest.raises(ConfigError, match=match):
            opened(name)
        opened(name, overwrite=True).push(folder, "over")
    opened("jane/begun").push(folder, "into")
    assert hub.models["jane/words"].files().keys() == {*NEW, "pytorch_model.bin", "config.json"}


def test_private_is_never_public(hub: HubState) -> None:
    hub.add("jane/public", OLD)
    hub.add("jane/private", OLD, private=True)
    with pytest.raises(ConfigError, match=r"jane/public exists and is public: make it private .*, or leave --private"):
        opened("jane/public", private=True)
    assert opened("jane/private", private=True).exists


def test_who_may_not_write_is_told_so(hub: HubState, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("others/streets", OLD)
    for name in ("others/streets", "others/new"):
        with pytest.raises(HdganError, match=r"^nothing was pushed: the hub refuses access .*\(status 403: You don't"):
            opened(name).push(folder, "no")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(ConfigError, match=r"\(status 401: Invalid credentials .*\): log in with a token that may"):
        opened("jane/streets")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match=r"^nobody is logged in to \S+: log in with `hf auth login`, or set HF_TOKEN"):
        opened("jane/streets")
    assert hub.models.keys() == {"others/streets"}


@pytest.mark.parametrize("name", ["streets", "a/b/c", "jane/", "ja ne/x", "a/b--c", "a/" + "b" * 99])
def test_names_that_the_hub_cannot_have(hub: HubState, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a repository on the Hugging Face Hub: write OWNER/NAME"):
        opened(name)
    assert hub.requests == []


def test_without_a_connection_nothing_is_pushed(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HdganError, match="nothing was pushed to hf:jane/streets, since HF_HUB_OFFLINE is set: repeat"):
        opened("jane/streets")
