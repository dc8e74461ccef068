"""Names without the marks of wrappers, and numbers that are finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from hdgan.errors import CheckpointError
from hdgan.weights import is_finite, plain_names, require_finite


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_prefixes_are_taken_off(prefix: str) -> None:
    state = {f"{prefix}model.{k}.weight": k for k in range(3)}
    assert plain_names(state, "it") == {f"model.{k}.weight": k for k in range(3)}


def test_a_part_that_was_compiled_has_its_plain_name_too() -> None:
    assert plain_names({"model._orig_mod.1.weight": 1, "a.module.weight": 2}, "it") == {
        "model.1.weight": 1, "a.module.weight": 2,
    }  # fmt: skip


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"it contains a twice"):
        plain_names({"a": 1, "module.a": 2}, "it")


@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.spectral_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_weights_in_parts_are_told(wrap) -> None:  # type: ignore[no-untyped-def]
    state = nn.Sequential(wrap(nn.Conv2d(2, 2, 1))).state_dict()
    with pytest.raises(CheckpointError, match=r"it: 0\.\S+ is part of a weight under spectral norm.*save network"):
        plain_names(state, "it")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_nan_is_found_in_every_type(dtype: torch.dtype) -> None:
    value = torch.ones(3, 2)
    assert is_finite(value.to(dtype))
    value[1, 1] = float("nan")
    assert not is_finite(value.to(dtype))


def test_what_is_beyond_float32_is_not_finite() -> None:
    require_finite({"a": torch.tensor([1e30]), "n": torch.tensor(2**60), "none": torch.zeros(0)}, "it")
    with pytest.raises(CheckpointError, match=r"it: b\.weight contains numbers that are NaN or infinite \(1 of 2\)"):
        require_finite({"a": torch.ones(1), "b.weight": torch.tensor([1e300, 0.0], dtype=torch.float64)}, "it")
    with pytest.raises(CheckpointError, match="c contains"):
        require_finite({"c": torch.tensor([float("-inf")])}, "it")
