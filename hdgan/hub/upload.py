"""Upload of a folder to the hub as one commit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.errors import ConfigError, HdganError
from hdgan.hub.download import is_of_hdgan, listed
from hdgan.hub.names import PREFIX, HubModel, require_repository
from hdgan.hub.problems import HubUnreachable, explained, library, login_remedy

_ALWAYS_THERE = (".gitattributes", "README.md", "LICENSE")
"""Files of a repository into which nobody has put a model yet."""


@dataclass(frozen=True)
class Pushed:
    """A commit on the hub."""

    url: str
    commit: str


@dataclass(frozen=True)
class Destination:
    """A repository of the hub that takes a model. `open_destination` makes one."""

    model: HubModel
    """Its revision is a branch."""
    private: bool
    """Whether it is private, or will be."""
    commit: str | None
    """The commit that the branch is at; None if there is no such repository or branch."""
    exists: bool
    """Whether the repository exists."""
    files: tuple[str, ...] = ()
    """What the branch has."""

    def push(self, folder: Path, message: str, replaced: Collection[str] = ()) -> Pushed:
        """Commit all files of a folder, in one commit: the branch gets all of them, or stays as it is.

        Args:
            folder: its files, also those in folders.
            message: of the commit.
            replaced: files, and folders that end in a slash, that are deleted in the same commit unless the folder has
                them.

        Raises:
            HdganError: the hub refuses, has another commit by now, or cannot be reached. A repository or branch that
                was made for this push remains.
        """
        hub, (repository, branch) = library(), (self.model.repository, self.model.revision)
        new = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        operations: list[Any] = [hub.CommitOperationAdd(name, file) for name, file in new.items()]
        folders = tuple(part for part in replaced if part.endswith("/"))
        old = [name for name in self.files if name not in new and (name in replaced or name.startswith(folders))]
        operations += [hub.CommitOperationDelete(name) for name in old]
        api, made = hub.HfApi(), ""
        try:
            with explained(self.model, HdganError):
                if not self.exists:
                    api.create_repo(repository, private=self.private or None)
                    made = f"; the new repository {repository} remains, without a model"
                if branch is not None and self.commit is None:
                    api.create_branch(repository, branch=branch, exist_ok=True)
                done = api.create_commit(
                    repository, operations, commit_message=message, revision=branch, parent_commit=self.commit
                )
        except HubUnreachable as problem:
            raise HdganError(f"the push to {self.model} did not end, since {problem}: repeat it{made}") from None
        except HdganError as problem:
            raise HdganError(f"nothing was pushed: {problem}{made}") from problem.__cause__
        page = f"{hub.constants.ENDPOINT}/{repository}"
        return Pushed(page if branch is None else f"{page}/tree/{branch}", done.oid)


def open_destination(
    repository: str, model_file: str, *, branch: str | None = None, private: bool = False, overwrite: bool = False
) -> Destination:
    """Ask the hub whether a model can be pushed to a repository. Nothing is changed there.

    Args:
        repository: OWNER/NAME.
        model_file: the file by which a model of hdgan is recognised.
        branch: None for main.
        private: whether the model must not become public.
        overwrite: take also a repository that holds something else.

    Raises:
        ConfigError: the name is none, nobody is logged in, the repository is public though it should be private, or
            it holds something else.
        HdganError: the hub refuses, or cannot be reached.
    """
    require_repository(repository)
    hub, model = library(), HubModel(repository, branch)
    if hub.get_token() is None:
        raise ConfigError(f"nobody is logged in to {hub.constants.ENDPOINT}: {login_remedy()}")
    try:
        with explained(model, ConfigError):
            return _found(model, model_file, private, overwrite)
    except HubUnreachable as problem:
        raise HdganError(f"nothing was pushed to {model}, since {problem}: repeat this with a connection") from None


def _found(model: HubModel, model_file: str, private: bool, overwrite: bool) -> Destination:
    hub = library()
    api = hub.HfApi()
    try:
        main: Any = api.model_info(model.repository)
    except hub.errors.GatedRepoError:
        raise
    except hub.errors.RepositoryNotFoundError:
        return Destination(model, private, None, exists=False)
    if private and not main.private:
        raise ConfigError(
            f"{model.repository} exists and is public: make it private in its settings on the hub, or leave --private "
            "out"
        )
    at = main
    if model.revision is not None:
        try:
            at = api.model_info(model.repository, revision=model.revision)
        except hub.errors.RevisionNotFoundError:
            at = None
    files = tuple(sibling.rfilename for sibling in (at or main).siblings or ())
    foreign = [name for name in files if name not in _ALWAYS_THERE]
    commit = HubModel(model.repository, (at or main).sha)
    if foreign and not overwrite and not (model_file in files and is_of_hdgan(commit, model_file)):
        raise ConfigError(
            f"{PREFIX}{model.repository} holds no model of hdgan but has {listed(files)}: choose another name, or add "
            "--overwrite to push into it all the same"
        )
    return Destination(model, main.private, None if at is None else at.sha, exists=True, files=files)
