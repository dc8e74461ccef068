"""State dicts of other codes: what is none is named, and a network takes exactly the tensors that it needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.errors import CheckpointError
from hdgan.interop.state_dicts import load_strictly, norm_of, numbers, renamed_state, tensors_of

LAYERS = {"fc": "0"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "is a list, not a state dict"),
        ({"epoch": 3}, "'epoch' is a int, not a tensor"),
        ({"state_dict": {}}, "'state_dict' is a dict, not a tensor"),
        ({0: torch.zeros(2)}, "0 is not the name of a tensor"),
        ({"a": torch.ones(2).to_sparse()}, "a is not a dense tensor"),
    ],
)
def test_what_is_no_state_dict_is_named(content: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^G\.pth.*{says}"):
        tensors_of(content, "G.pth")


def test_a_network_is_loaded_by_the_names_of_its_layers() -> None:
    network = nn.Sequential(nn.Linear(2, 3))
    state = renamed_state(network, LAYERS)
    assert list(state) == ["fc.weight", "fc.bias"]
    with torch.device("meta"):
        other = nn.Sequential(nn.Linear(2, 3))
    load_strictly(other, LAYERS, state, "G.pth", "network", "")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fc.bias": torch.ones(3, dtype=torch.int8)}, r"fc\.bias is torch\.int8, not floating point"),
        ({"fc.bias": torch.full((3,), torch.nan)}, r"fc\.bias contains numbers that are NaN"),
        (
            {"fc.bias": torch.ones(4)},
            r"do not fit any network \(1 with another shape: fc\.bias is \(4,\) instead of \(3,\)\); mend",
        ),
        ({"fc.scale": torch.ones(3)}, r"1 not part of the architecture: fc\.scale"),
        ({"fc.bias": None}, r"1 missing: fc\.bias"),
    ],
)
def test_other_tensors_are_named(change: dict[str, Tensor | None], says: str) -> None:
    network = nn.Sequential(nn.Linear(2, 3, device="meta"))
    state = {"fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(3)} | change
    tensors = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(CheckpointError, match=rf"^G\.pth: .*{says}"):
        load_strictly(network, LAYERS, tensors, "G.pth", "network", "mend it")


def test_only_batch_norms_keep_running_statistics() -> None:
    convolution, statistics = {"0.weight": torch.ones(1, 1, 3, 3)}, {"1.running_mean": torch.ones(1)}
    assert norm_of(convolution | statistics) == ("instance", convolution)
    batch = convolution | statistics | {"1.weight": torch.ones(1)}
    assert norm_of(batch) == ("batch", batch)


def test_numbers_of_absurd_length_are_none() -> None:
    assert numbers(r"model\.(\d+)\.", ["model.1.weight", "model.12.bias", f"model.{'9' * 5000}.bias", "x.3."]) == {
        1,
        12,
    }
