"""What a check found wrong is remembered for one device, one torch and one hdgan."""

import os
import sys

import pytest
import torch

from hdgan.errors import HdganError
from hdgan.ops import _backend, _verdicts, avg_pyramid
from tests.ops.test_backend import used_kernels

X = torch.zeros(1, 1, 4, 4)
WRONG = {("cpu", "avg_pyramid"): "result 0: twice the allowed error"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    _verdicts.wrong_on.cache_clear()
    yield
    _verdicts.wrong_on.cache_clear()


def in_a_new_process():
    _verdicts.wrong_on.cache_clear()


def test_a_record_is_kept_and_replaced():
    assert _verdicts.wrong_on("cpu", None) == {}
    _verdicts.record("cpu", None, ["cpu"], WRONG)
    in_a_new_process()
    assert _verdicts.wrong_on("cpu", None) == WRONG
    assert not used_kernels(lambda: avg_pyramid(X, 1))
    _verdicts.record("cpu", None, ["triton"], {("triton", "l1_distance"): "NaN"})
    assert _verdicts.wrong_on("cpu", None) == WRONG | {("triton", "l1_distance"): "NaN"}
    _verdicts.record("cpu", None, ["cpu", "triton"], {})
    assert not _verdicts.verdict_file().exists()
    assert used_kernels(lambda: avg_pyramid(X, 1))


@pytest.mark.parametrize("changed", ["device", "torch", "hdgan"])
def test_another_device_or_version_has_no_verdict(monkeypatch, changed):
    _verdicts.record("cpu", None, ["cpu"], WRONG)
    if changed == "device":
        monkeypatch.setattr(_verdicts, "device_name", lambda *_: "Abacus 9000")
    elif changed == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    else:
        monkeypatch.setattr(_verdicts, "version", lambda name: "9.9")
    in_a_new_process()
    assert _verdicts.wrong_on("cpu", None) == {}
    _verdicts.record("cpu", None, ["cpu"], {})
    assert _verdicts.verdict_file().exists()  # with what was found before


def test_two_gpus_are_told_apart(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"Abacus {gpu}")
    monkeypatch.setattr(_backend, "why_unusable", lambda name, gpu: None)
    _verdicts.record("cuda", 1, ["cuda"], {("cuda", "instance_mean"): "NaN"})
    for gpu, op, expected in ((0, "instance_mean", "cuda"), (1, "instance_mean", "triton"), (1, "avg_pyramid", "cuda")):
        assert _backend._choose(op, None, "cuda", gpu, torch.float32) == (expected, None)
    assert _backend._choose("instance_reduce", None, "cuda", 1, torch.float32) == ("triton", None)
    assert _backend._choose("instance_mean", "cuda", "cuda", 1, torch.float32) == ("cuda", None)


def test_a_damaged_record_is_said_to_be_one():
    _verdicts.verdict_file().parent.mkdir(parents=True)
    _verdicts.verdict_file().write_text('{"wrong": [')
    with pytest.warns(
        UserWarning, match=r"kernels\.json is damaged .*run hdgan info --check again; kernels that a check"
    ):
        assert _verdicts.wrong_on("cpu", None) == {}


@pytest.mark.parametrize("reason", ["too long", "a file", "forbidden", "no home"])
def test_a_folder_that_cannot_be_used_stops_no_op(tmp_path, monkeypatch, reason):
    """As in a container whose user does not own its home. The check says in one line what to do."""
    (tmp_path / "file").touch()
    (tmp_path / "forbidden").mkdir()
    folder = {"too long": "x" * 300, "a file": "file", "forbidden": "forbidden/cache"}.get(reason)
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / folder) if folder else "~hdgan-has-no-such-user/cache")
    if reason == "forbidden":
        if sys.platform == "win32" or os.geteuid() == 0:
            pytest.skip("this user may look everywhere")
        (tmp_path / "forbidden").chmod(0)
    assert avg_pyramid(X, 1)[1].shape == (1, 1, 2, 2)
    with pytest.raises(HdganError, match=r"^cannot keep what the check found: .*; name another folder by HDGAN_CACHE$"):
        _verdicts.record("cpu", None, ["cpu"], WRONG)
    if reason != "no home":
        _verdicts.record("cpu", None, ["cpu"], {})  # nothing is to be kept


def test_without_a_record_no_device_is_asked_for_its_name(monkeypatch):
    monkeypatch.setattr(_verdicts, "device_name", lambda *_: pytest.fail("asked"))
    assert _verdicts.wrong_on("cuda", 0) == {}
