"""Errors of huggingface_hub in our words."""

from __future__ import annotations

import pytest

from hdgan.errors import CheckpointError, HdganError
from hdgan.hub.names import HubModel
from hdgan.hub.problems import HubUnreachable, explained
from tests.hub.stand_in import HubState


def told(error: Exception, cause: Exception | None = None) -> HdganError:
    """What a user is told about an error."""
    with pytest.raises(HdganError) as found, explained(HubModel("jane/streets"), CheckpointError):
        raise error from cause
    return found.value


@pytest.mark.usefixtures("hub")
def test_what_the_machine_refuses_is_one_line() -> None:
    full = told(OSError(28, "No space left on device", "blob"))
    assert isinstance(full, CheckpointError)
    assert str(full) == "hf:jane/streets: No space left on device; repeat the command"
    signed = told(RuntimeError("upload to https://s3/x?Signature=secret&Key=k failed\nfor good"))
    assert str(signed) == "hf:jane/streets: upload to https://s3/x failed for good; repeat the command"


def test_a_lost_connection_may_be_found_again(hub: HubState) -> None:
    lost = told(RuntimeError("Error while uploading 'x'"), ConnectionResetError())
    assert isinstance(lost, HubUnreachable)
    assert str(lost) == f"{hub.url} cannot be reached (ConnectionResetError)"


@pytest.mark.usefixtures("hub")
def test_other_errors_are_faults_of_the_code() -> None:
    with pytest.raises(KeyError, match="fault"), explained(HubModel("jane/streets"), CheckpointError):
        raise KeyError("fault")
