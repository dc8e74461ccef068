"""`hdgan info`, with parts missing too."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hdgan
from hdgan.allocator import allocator_name
from hdgan.commands import info
from hdgan.commands.main import main
from hdgan.ops import _backend

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whether a backend is usable is asked once per process."""
    monkeypatch.delenv("HDGAN_BACKEND", raising=False)
    _backend._why_unusable.cache_clear()
    yield
    _backend._why_unusable.cache_clear()


def found(capsys: Capture) -> dict[str, Any]:
    assert main(["info", "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def shown(capsys: Capture) -> str:
    assert main(["info"]) == 0
    return " ".join(capsys.readouterr().out.split())


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name in modules:
            raise ImportError(f"[Errno 2] No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_nothing_is_asked_of_the_installation_that_the_version_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hdgan.__version__

    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", missing)
    assert info.collect()["versions"]["hdgan"] == expected


def test_what_is_here(capsys: Capture) -> None:
    facts = found(capsys)
    assert facts["versions"]["hdgan"] == hdgan.__version__
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["allocator"] == allocator_name()
    assert facts["extension"]["instruction set"] in ("default", "avx2")
    assert list(facts["backends"]) == list(_backend.BACKENDS)
    assert facts["backends"]["eager"] is facts["backends"]["cpu"] is None
    assert facts["default"]["cpu"] == {"backend": "cpu", "refused": None}
    text = shown(capsys)
    assert "backend cpu usable" in text
    assert f"allocator {allocator_name()}" in text
    assert "ops on cpu tensors cpu" in text


def test_without_the_extension(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "hdgan._C")
    facts = found(capsys)
    assert facts["extension"] is None
    assert "install hdgan with a C++ compiler" in facts["backends"]["cpu"]
    assert facts["default"]["cpu"]["backend"] == "eager"
    assert "backend cpu not usable: hdgan._C cannot be imported ([Errno 2] No module" in shown(capsys)


def test_without_triton(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    facts = found(capsys)
    assert facts["versions"]["triton"] is None
    assert "pip install triton" in facts["backends"]["triton"]


def test_without_a_gpu(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    facts = found(capsys)
    assert facts["gpus"] == []
    assert facts["backends"]["triton"] == "PyTorch sees no CUDA GPU"
    assert facts["default"]["cuda"]["backend"] == "eager"
    assert "GPUs none" in shown(capsys)


def test_a_driver_that_fails_is_no_gpu(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("driver and library do not match")

    monkeypatch.setattr(torch.cuda, "device_count", fails)
    assert found(capsys)["gpus"] == []


def test_gpus(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="Abacus 9000", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(info, "_driver", lambda: None)
    expected = {"name": "Abacus 9000", "capability": "9.0", "memory GiB": 80.0, "driver": None}
    (facts,) = found(capsys)["gpus"]
    assert set(facts.pop("backends")) == {"cuda", "triton"}
    assert facts == expected
    assert "GPU 0 Abacus 9000, capability 9.0, 80.0 GiB, driver unknown" in shown(capsys)


def test_two_kinds_of_gpus(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [SimpleNamespace(name=f"Abacus {k}", major=9 - k, minor=0, total_memory=2**30) for k in range(2)]
    extension = SimpleNamespace(
        cpu_isa="avx2",
        cpu_supported=True,
        openmp=True,
        cuda_archs="9.0",
        cuda_version="13.0",
        cuda_driver_version=lambda: 13000,
    )
    monkeypatch.setitem(sys.modules, "hdgan._C", extension)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (gpus[index].major, 0))
    monkeypatch.setattr(info, "_driver", lambda: None)
    facts = found(capsys)
    assert facts["backends"]["cuda"] is facts["gpus"][0]["backends"]["cuda"] is None
    assert "this GPU has 8.0" in facts["gpus"][1]["backends"]["cuda"]
    text = shown(capsys)
    assert "backend cuda usable" in text
    assert "backend cuda on GPU 1 not usable: hdgan._C was built for compute capability 9.0, this GPU has 8.0" in text


@pytest.mark.parametrize(
    ("name", "device", "says"),
    [("eager", "cpu", None), ("cpu", "cuda", "it works on cpu tensors"), ("abacus", "cpu", "among eager, cpu")],
)
def test_forced_backend(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str, device: str, says: str | None
) -> None:
    monkeypatch.setenv("HDGAN_BACKEND", name)
    default = found(capsys)["default"][device]
    assert default["backend"] == name
    assert default["refused"] is None if says is None else says in default["refused"]
    assert f"ops on {device} tensors {name}, by HDGAN_BACKEND" in shown(capsys)


def test_in_a_process_of_its_own(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("info", "--json", HDGAN_BACKEND="abacus")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    facts = json.loads(output)
    assert facts["default"]["cpu"]["backend"] == "abacus"
    assert "expected a backend among" in facts["default"]["cpu"]["refused"]
