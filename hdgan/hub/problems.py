"""What goes wrong between here and the hub, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from hdgan.errors import ConfigError, HdganError
from hdgan.hub.names import HubModel

_BUSY = (429, 500, 502, 503, 504)
_SIGNATURE = re.compile(r"(?<=\w)\?\S+")
"""The part of an address that may grant access."""


class HubUnreachable(HdganError):
    """The hub does not answer, or is not to be asked: what is in the cache may still be used."""


def library() -> ModuleType:
    """huggingface_hub.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ConfigError(
            "models on the Hugging Face Hub need huggingface_hub: install it with "
            '`pip install -e ".[hub]"` in the checkout of hdgan'
        ) from error
    return huggingface_hub


def login_remedy() -> str:
    """What a user can do to be known to the hub. The token itself is never part of a message."""
    if library().get_token() is None:
        return "log in with `hf auth login`, or set HF_TOKEN"
    return "log in with a token that may do this with `hf auth login`, or set HF_TOKEN to one"


@contextmanager
def explained(model: HubModel, kind: type[HdganError]) -> Iterator[None]:
    """Turn errors of huggingface_hub into ours.

    Messages of the library contain addresses, some of which are signed; ours contain no signature and no token.

    Args:
        model: what the block asks the hub about.
        kind: the class of the errors.

    Raises:
        HubUnreachable: there is no connection, or the hub is out of order.
        HdganError: of the given class, if the hub refuses.
    """
    try:
        yield
    except HdganError:
        raise
    except Exception as error:
        translated = _translated(model, error, kind)
        if translated is None:
            raise
        raise translated from error


def _translated(model: HubModel, error: Exception, kind: type[HdganError]) -> HdganError | None:
    """Our error for one of huggingface_hub; None for one that is a fault of the code."""
    errors = library().errors
    if type(error) is RuntimeError and isinstance(error.__cause__, Exception):  # which only names the file
        return _translated(model, error.__cause__, kind)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable("HF_HUB_OFFLINE is set")
    if isinstance(error, errors.HfHubHTTPError):
        busy = error.response.status_code in _BUSY
        return HubUnreachable(_unreachable(error)) if busy else kind(_refusal(model, error))
    # HTTPError is of the HTTP library that huggingface_hub uses.
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError, TimeoutError)):
        return HubUnreachable(_unreachable(error))
    if isinstance(error, (OSError, ValueError, RuntimeError)):
        reason = getattr(error, "strerror", None) or _SIGNATURE.sub("", " ".join(str(error).split()))
        return kind(f"{model}: {reason:.300}; repeat the command")
    return None


def _unreachable(error: Exception) -> str:
    """Why the hub gave no answer."""
    place = library().constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{place} is out of order at the moment (status {status})"
    return f"{place} cannot be reached ({type(error.__cause__ or error).__name__})"


def _refusal(model: HubModel, error: Exception) -> str:
    errors = library().errors
    status = error.response.status_code  # type: ignore[attr-defined]
    said = " ".join((getattr(error, "server_message", None) or "").split())
    page = f"{library().constants.ENDPOINT}/{model.repository}"
    if isinstance(error, errors.GatedRepoError):
        return f"{model} is gated: ask for access on {page}, then {login_remedy()}"
    # To those who are not logged in, the hub does not say whether a private repository exists.
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 401 and library().get_token() is None):
        return f"there is no model {page}, or it is private: check the name, or {login_remedy()}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no revision {model.revision}: give a branch, a tag or a commit"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{page} was changed meanwhile: repeat the command"
    remedy = login_remedy() if status in (401, 403) else "see the page of the model, then repeat the command"
    return f"the hub refuses access to {page} (status {status}{f': {said:.200}' if said else ''}): {remedy}"
