"""`hdgan info --check`: right kernels pass, and a planted wrong one is named, remembered and left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hdgan import ops
from hdgan.commands import kernel_check
from hdgan.commands.kernel_check import OPS, cases, check_op
from hdgan.commands.main import main
from hdgan.ops import _backend, _verdicts, avg_pyramid
from tests.ops.backends import HAS_GPU
from tests.ops.test_backend import used_kernels

CPU = torch.device("cpu")
X = torch.randn(1, 2, 8, 8)
Plant = Callable[[str, Callable[..., None]], None]


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small inputs, short measurements, and a cache of its own."""
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HDGAN_BACKEND", raising=False)
    monkeypatch.setattr(kernel_check, "LARGE", {"cpu": (1, 4, 32, 64), "cuda": (1, 4, 32, 64)})
    monkeypatch.setattr(kernel_check, "SECONDS", 1e-3)
    monkeypatch.setattr("hdgan.commands.info.rate_of_copies", lambda device: 1e10)
    monkeypatch.setattr("hdgan.commands.info._gpu_indices", lambda: range(0))
    _verdicts.wrong_on.cache_clear()
    yield
    _verdicts.wrong_on.cache_clear()


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Run something after a kernel of the CPU, with its arguments."""
    real = _backend.kernel_of

    def planted(name: str, spoil: Callable[..., None]) -> None:
        def kernel_of(stem: str, kernel: str, backend: str) -> Any:
            function = real(stem, kernel, backend)
            if (f"{stem}_{kernel}", backend) != (name, "cpu"):
                return function

            def spoiled(*arguments: Any) -> None:
                function(*arguments)
                spoil(*arguments)

            return spoiled

        monkeypatch.setattr(_backend, "kernel_of", kernel_of)

    return planted


def checked(capsys: pytest.CaptureFixture[str], status: int) -> dict[str, Any]:
    assert main(["info", "--check", "--json"]) == status
    return dict(json.loads(capsys.readouterr().out))


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["info", *arguments])
    return " ".join(capsys.readouterr().out.split())


def test_every_op_is_checked() -> None:
    files = {file.stem for file in Path(ops.__file__).parent.glob("[!_]*.py")}
    assert set(OPS) == files


@pytest.mark.parametrize("op", OPS)
def test_cases_reach_every_kernel(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel of the CPU is called by the check of its op, in every dtype."""
    from hdgan import _C

    real, called = _backend.kernel_of, set()
    monkeypatch.setattr(
        _backend,
        "kernel_of",
        lambda stem, kernel, backend: called.add(f"{stem}_{kernel}") or real(stem, kernel, backend),
    )
    assert check_op(op, "cpu", CPU).problem is None
    assert called == {name.removesuffix("_cpu") for name in dir(_C) if name.startswith(op) and name.endswith("_cpu")}
    assert {case.where.split()[0] for case in cases(op, CPU)} == {"float32", "bfloat16", "float16"}


def test_right_kernels_leave_no_record(capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(capsys, 0)
    assert {row["op"] for row in found["check"]} == set(OPS)
    for row in found["check"]:
        assert (row["backend"], row["device"], row["problem"]) == ("cpu", "cpu", None)
        assert row["error"] <= 1
        assert row["forward"] > 0
        assert (row["backward"] is None) == (row["op"] in ("encode_labels", "instance_index"))
    assert found["wrong"] == []
    assert not _verdicts.verdict_file().exists()
    text = shown(capsys, "--check")
    assert "checking avg_pyramid on cpu" in text
    assert "avg_pyramid cpu cpu right" in text


def one_pixel(x: Tensor, half: Tensor, *_: Any) -> None:
    half[..., -1, -1] += 1  # type: ignore[operator]


def test_a_wrong_kernel_is_named_and_left_out(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant("avg_pyramid_fwd", one_pixel)
    found = checked(capsys, 1)
    wrong = [row for row in found["check"] if row["problem"]]
    assert [(row["op"], row["backend"]) for row in wrong] == [("avg_pyramid", "cpu")]
    assert "times the allowed error" in wrong[0]["problem"]
    assert wrong[0]["problem"].startswith("result 0, float32 NCHW [2, 5, 37, 53]")
    assert [row["op"] for row in found["wrong"]] == ["avg_pyramid"]
    expected = avg_pyramid(X, 1, backend="eager")[1]
    assert torch.equal(avg_pyramid(X, 1)[1], expected)
    assert not used_kernels(lambda: avg_pyramid(X, 1))
    assert used_kernels(lambda: ops.instance_norm_act(X))
    assert used_kernels(lambda: avg_pyramid(X, 1, backend="cpu"))
    with ops.backend("cpu"):
        assert not torch.equal(avg_pyramid(X, 1)[1], expected)
    text = shown(capsys)
    assert "avg_pyramid on cpu found wrong on" in text
    assert "so it is not chosen: result 0, float32" in text


def test_a_later_check_that_finds_it_right_clears_the_record(
    plant: Plant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(kernel_check, "check_kernels", kernel_check.check_kernels)
        plant("avg_pyramid_fwd", one_pixel)
        checked(capsys, 1)
    plant("avg_pyramid_fwd", lambda *_: None)
    assert checked(capsys, 0)["wrong"] == []
    assert not _verdicts.verdict_file().exists()
    assert used_kernels(lambda: avg_pyramid(X, 1))


@pytest.mark.parametrize(
    ("kernel", "spoil", "says"),
    [
        ("avg_pyramid_bwd", lambda dhalf, dquarter, dx, *_: dx.mul_(1.01), "gradient 0"),
        ("encode_labels_fwd", lambda label, ids, y, *_: y[:, 0].zero_(), "result 0"),
        ("encode_labels_codes", lambda label, ids, codes, *_: codes[:, -1].add_(1), "result 0"),
        ("instance_index_fwd", lambda ids, rows, *_: rows[:, 0, 0].add_(1), "result 0"),
        ("instance_mean_reduce", lambda x, rows, offsets, sums, *_: sums[-1].mul_(2), "result 0"),
        ("instance_norm_act_fwd", lambda x, w, b, r, y, *_: y[:, -1].fill_(float("nan")), "inf times"),
        ("instance_norm_act_bwd", lambda dy, x, w, b, mean, rstd, dx, dr, sums, *_: sums.mul_(2), "gradient 2"),
        ("l1_distance_fwd", lambda x, target, distance, *_: distance.add_(0.01), "result 0"),
        ("l1_distance_bwd", lambda dy, sign, dx, *_: dx.neg_(), "gradient 0"),
        ("label_conv2d_bwd", lambda codes, dtable, *_: dtable[0].zero_(), "gradient 0"),
    ],
)
def test_faults_of_each_kind_are_found(plant: Plant, kernel: str, spoil: Callable[..., None], says: str) -> None:
    plant(kernel, spoil)
    op = next(op for op in OPS if kernel.startswith(op))
    problem = check_op(op, "cpu", CPU).problem
    assert problem is not None
    assert says in problem


def test_a_kernel_that_raises_is_wrong(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("invalid device function\nand more")

    plant("l1_distance_fwd", fail)
    (row,) = [row for row in checked(capsys, 1)["check"] if row["problem"]]
    assert row["op"] == "l1_distance"
    assert row["problem"].endswith("invalid device function")


def test_what_cannot_be_recorded_is_shown(
    plant: Plant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "file"))
    plant("avg_pyramid_fwd", one_pixel)
    assert main(["info", "--check"]) == 2
    said = capsys.readouterr()
    assert "WRONG: result 0, float32" in " ".join(said.out.split())
    assert said.err.startswith("hdgan: error: cannot keep what the check found: ")


def test_too_little_memory_is_no_fault_of_a_kernel(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    plant("l1_distance_fwd", fail)
    assert main(["info", "--check", "--json"]) == 2
    assert "l1_distance cannot be checked, because cpu has not enough free memory" in capsys.readouterr().err
    assert not _verdicts.verdict_file().exists()


def test_a_broken_gpu_has_no_rate_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(kernel_check, "copy_ceiling", fail)
    assert kernel_check.rate_of_copies(CPU) is None


def test_a_gpu_that_breaks_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(kernel_check, "_broken", lambda device: "cuda:0 does not work after this: illegal address")
    results = list(kernel_check.check_kernels([], said.append))
    assert len(results) == 1
    assert said[-1].startswith("cuda:0 does not work after this")


@pytest.mark.gpu
def test_kernels_of_this_gpu_are_right() -> None:
    assert HAS_GPU
    found = list(kernel_check.check_kernels([0]))
    assert [(row.op, row.backend, row.problem) for row in found if row.problem] == []
    assert {row.backend for row in found} >= {"cpu", "triton"}
