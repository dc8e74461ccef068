"""Which device an option means, what counts as too little memory, and the cores that the system grants."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hdgan.devices import (
    available_cores,
    available_memory,
    choose_device,
    emulates_bfloat16,
    enough_memory,
    is_out_of_memory,
    network_format,
)
from hdgan.errors import ConfigError


def test_a_device_that_exists_is_chosen() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "mps", "xpu", "meta", "cuda:-1", "cuda:x", "", "x" * 300, f"cuda:{10**20}"])
def test_what_is_no_device_here_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=r"^device .{0,60} is not a device.*: give auto, cpu, cuda or cuda:N$"):
        choose_device(device)


def test_a_gpu_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"device cuda:99 needs CUDA device 99, but PyTorch sees \d+"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("capabilities", "emulated"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
        ({"architecture": "aarch64", "bf16": False}, False),
        (None, False),
    ],
)
def test_cpus_without_instructions_for_bfloat16_are_known(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object] | None, emulated: bool
) -> None:
    if capabilities is None:  # of PyTorch before it could tell
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert emulates_bfloat16(torch.device("cpu")) == emulated
    assert not emulates_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("one_dnn", [True, False])
def test_networks_have_channels_last_where_convolutions_run_best_in_it(
    monkeypatch: pytest.MonkeyPatch, one_dnn: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: one_dnn)
    expected = torch.channels_last if one_dnn else torch.contiguous_format
    assert network_format(torch.device("cpu")) == expected
    assert network_format(torch.device("cuda")) == torch.channels_last


def test_too_little_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)  # 4 PiB
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'"))
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert is_out_of_memory(RuntimeError("The operation failed …\nRuntimeError: CUDA out of memory. Tried to"))
    assert not is_out_of_memory(RuntimeError("sizes do not match"))


def test_too_little_memory_is_one_line_and_nothing_else_is() -> None:
    with pytest.raises(ConfigError, match=r"^take less$"), enough_memory("take less"):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match=r"^sizes$"), enough_memory("take less"):
        raise RuntimeError("sizes")


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 12), ("350000 100000", 3), ("5000 100000", 1), (None, 12), ("garbage", 12)]
)
def test_a_container_may_grant_fewer_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cores(tmp_path) == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, None), ("max", None), (str(3 << 20), 2 << 20), ("1", 0)])
def test_a_container_may_grant_less_memory(tmp_path: Path, limit: str | None, expected: int | None) -> None:
    everything = available_memory(torch.device("cpu"), tmp_path / "none")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(f"{1 << 20}\n")
    found = available_memory(torch.device("cpu"), tmp_path)
    if everything is None:  # no Linux
        assert found is None
    elif expected is None:
        assert found == pytest.approx(everything, rel=0.2)  # other programs run as well
    else:
        assert found == expected
