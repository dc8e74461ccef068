"""The runner: what is compared, what is counted, and that what is wrong gets no number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hdgan.benchmarks import runner, suite, timing
from hdgan.benchmarks.cases import startup, step
from hdgan.benchmarks.display import run_suite as run_and_write
from hdgan.benchmarks.display import tell
from hdgan.benchmarks.rows import read
from hdgan.benchmarks.runner import Benchmark, CheckFailed, Context, Cost, Function, Trial, check, differentiable
from hdgan.benchmarks.shapes import instance_ids
from hdgan.benchmarks.suite import Selection, Suite
from hdgan.commands.main import main
from hdgan.errors import ConfigError

CPU = torch.device("cpu")


def square_trials(case: str, context: Context) -> Iterator[Trial]:
    """y = x²; the implementation "cpu" computes what the case says."""
    x = context.randn(1, 2, 3, 4)

    def run(implementation: str) -> Function:
        wrong = implementation == "cpu" and case != "right"
        factor = {"off": 1.01, "nan": float("nan")}.get(case, 1.0) if wrong else 1.0
        if wrong and case == "raises":
            return raises
        return lambda x: x.square() * factor

    return differentiable(context, run, [x], Cost(8, 4), Cost(12, 6))


def raises(x: Tensor) -> Tensor:
    raise RuntimeError("no such kernel\nmore of it")


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of one benchmark, on a device that copies 1 GB and computes 1 GFLOP a second."""
    cases = dict.fromkeys(("right", "off", "nan", "raises"), "anywhere")
    monkeypatch.setattr(suite, "BENCHMARKS", {"square": Benchmark("square", cases, square_trials)})  # type: ignore[arg-type]
    monkeypatch.setattr(timing, "copy_ceiling", lambda device, size=None: 1e9)
    monkeypatch.setattr(timing, "matmul_ceiling", lambda device, dtype: 1e9)


def run_suite(case: str, **options: object) -> Suite:
    made = Suite(Selection(CPU, only=case, seconds=1e-4, implementations=("eager", "cpu"), **options))  # type: ignore[arg-type]
    made.run()
    return made


def test_rows_of_a_right_implementation(square: None) -> None:
    done = run_suite("right")
    assert not done.failures
    assert {(row.direction, row.implementation, row.layout) for row in done.rows} == {
        (direction, implementation, layout)
        for direction in ("forward", "backward", "both")
        for implementation in ("eager", "cpu")
        for layout in ("NCHW", "NHWC")
    }
    for row in done.rows:
        assert row.q20_ms <= row.median_ms <= row.q80_ms
        assert row.rounds >= 5
        eager = next(
            r for r in done.rows if (r.direction, r.implementation, r.layout) == (row.direction, "eager", "NCHW")
        )
        assert row.speedup == pytest.approx(eager.median_ms / row.median_ms)
        assert row.ceiling_percent == pytest.approx(100 * row.bytes / 1e9 / (row.median_ms / 1e3))
    both = next(row for row in done.rows if row.direction == "both")
    assert (both.bytes, both.flops, both.bound) == (20, 10, "copy")


@pytest.mark.parametrize(
    ("case", "says"), [("off", "off by 1.0e-02"), ("nan", "off by nan"), ("raises", "RuntimeError: no such kernel")]
)
def test_a_red_check_writes_no_number(square: None, case: str, says: str) -> None:
    done = run_suite(case)
    assert {row.implementation for row in done.rows} == {"eager"}
    assert len(done.failures) == 6
    assert all("cpu" in failure.what for failure in done.failures)
    assert any(says in failure.why for failure in done.failures)
    assert tell(done, Console(quiet=True)) == 1


def test_the_baseline_is_measured_whatever_is_asked_for(square: None) -> None:
    made = Suite(Selection(CPU, only="right", implementations=("cpu",), layouts=("NHWC",)))
    assert [(case.layout, case.context.implementations) for case in made.cases] == [
        ("NCHW", ("eager",)),
        ("NHWC", ("cpu",)),
    ]


def test_time_runs_out(square: None) -> None:
    done = run_suite("right", minutes=1e-9)
    assert not done.rows
    assert [str(case) for case in done.left_out] == ["square: right, float32, NCHW", "square: right, float32, NHWC"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError])
def test_what_was_measured_is_kept(square: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """After each case, and of the case that is interrupted."""
    made = Suite(Selection(CPU, only="right", seconds=1e-4, implementations=("eager", "cpu")))
    measured, sizes = [], []

    def interrupted(trial: Trial, *arguments: object) -> runner.TrialResult:
        measured.append(trial)
        if len(measured) == 8:  # a case has six
            raise error("stop")
        return runner.run(trial, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(suite, "run", interrupted)
    monkeypatch.setattr("hdgan.benchmarks.rows.write", lambda path, rows, failed: sizes.append(len(rows)))
    with pytest.raises(error, match="stop"):
        run_and_write(made, Path("rows.csv"))
    assert sizes == [6, 7]


def test_a_run_drops_the_rows_of_what_fails(square: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["bench", "--only", "off", "--seconds", "1e-4", "--layout", "NCHW", "--results", str(tmp_path)]
    arguments += ["--implementations", "eager", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "check", lambda trial: 0.0)
        assert main(arguments) == 0
    (path,) = tmp_path.iterdir()
    assert {row.implementation for row in read(path)} == {"eager", "cpu"}
    assert main(arguments) == 1
    assert {row.implementation for row in read(path)} == {"eager"}


def test_large_adds_what_takes_a_gpu_alone() -> None:
    def cases(**options: object) -> list[str]:
        return [case.name for case in suite.choose(Selection(CPU, ("step", "startup"), **options))]  # type: ignore[arg-type]

    assert startup.INSTALL not in cases(large=True)
    assert set(cases(large=True)) - set(cases()) == {name for name, where in step.WHERE.items() if where == "gpu"}
    assert cases(only=startup.INSTALL) == [startup.INSTALL]


def test_versions_without_the_switch_of_buffers_compile_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(donated_buffer=True)
    monkeypatch.setattr(torch, "_functorch", SimpleNamespace(config=config))
    runner._keep_buffers()
    assert config.donated_buffer is False
    del config.donated_buffer
    runner._keep_buffers()
    assert not hasattr(config, "donated_buffer")
    monkeypatch.delattr(torch, "_functorch")
    runner._keep_buffers()


def test_integers_are_compared_exactly() -> None:
    def trial(found: Tensor) -> Trial:
        return Trial("cpu", "forward", lambda: [found], lambda: [torch.tensor([1, 2])], Cost(0, 0), 1.0)

    assert check(trial(torch.tensor([1, 2], dtype=torch.int32))) == 0
    with pytest.raises(CheckFailed):
        check(trial(torch.tensor([1, 3])))
    with pytest.raises(CheckFailed, match="shape"):
        check(trial(torch.tensor([1])))


def test_instance_ids_are_like_cityscapes() -> None:
    for count in (10, 60, 400):
        ids = instance_ids(512, 1024, count)
        assert ids.shape == (1, 512, 1024)
        assert ids.unique().numel() == count
        assert ids.unique()[0] == 0
        assert ((ids < 34) | (ids >= 26000)).all()


REFUSED = {
    "unknown benchmark": (["abacus"], "there is no benchmark 'abacus': give avg_pyramid, "),
    "unknown implementation": (["--implementations", "abacus"], "--implementations abacus: give some of eager, "),
    "implementation of another device": (["--implementations", "cuda", "--device", "cpu"], "--implementations cuda: "),
    "NVIDIA's without a checkout": (["--implementations", "nvidia"], "with --reference"),
    "no case": (["--only", "abacus"], "--only 'abacus' leaves no case"),
    "no GPU": (["--device", "cuda:99"], "--device cuda:99 needs CUDA device 99"),
    "no time": (["--seconds", "0"], "--seconds is 0"),
    "no threads": (["--threads", "0"], "--threads is 0"),
    "unknown revision": (["--compare", "no-such-revision"], "--compare no-such-revision: there is no such revision"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, says = REFUSED[case]
    assert main(["bench", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdgan: error: ")
    assert says in line


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "has no models/networks.py"), ("x = 1", "has no GlobalGenerator"), ("(", "cannot be imp")],
)
def test_a_reference_that_is_no_checkout(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "networks.py").write_text(content)
    with pytest.raises(ConfigError, match=f"{says}.*git clone"):
        suite.choose(Selection(CPU, reference=tmp_path))


def test_every_pass_has_its_tolerance() -> None:
    assert set(runner.TOLERANCE) == set(runner.DTYPES.values())
