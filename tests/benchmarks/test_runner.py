"""The runner: what is compared, what is counted, and that what is wrong gets no number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hdgan.benchmarks import runner, suite, timing
from hdgan.benchmarks.command import run_suite as run_with_bar
from hdgan.benchmarks.command import tell
from hdgan.benchmarks.rows import read
from hdgan.benchmarks.runner import CheckFailed, Context, Cost, Function, Trial, Work, check, differentiable
from hdgan.benchmarks.shapes import NormCase, instance_ids
from hdgan.benchmarks.suite import Options, Suite
from hdgan.benchmarks.works import WORKS, avg_pyramid, instance_norm_act, startup, step
from hdgan.commands.main import main
from hdgan.errors import ConfigError

CPU = torch.device("cpu")


def square_trials(case: str, context: Context) -> Iterator[Trial]:
    """y = x²; the contestant "cpu" computes what the case says."""
    x = context.randn(1, 2, 3, 4)

    def run(contestant: str) -> Function:
        wrong = contestant == "cpu" and case != "right"
        factor = {"off": 1.01, "nan": float("nan")}.get(case, 1.0) if wrong else 1.0
        if wrong and case == "raises":
            return raises
        return lambda x: x.square() * factor

    return differentiable(context, run, [x], Cost(8, 4), Cost(12, 6))


def raises(x: Tensor) -> Tensor:
    raise RuntimeError("no such kernel\nmore of it")


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of one work, on a device that copies 1 GB and computes 1 GFLOP a second."""
    cases = dict.fromkeys(("right", "off", "nan", "raises"), "anywhere")
    monkeypatch.setattr(suite, "WORKS", {"square": Work("square", cases, square_trials)})  # type: ignore[arg-type]
    monkeypatch.setattr(timing, "copy_ceiling", lambda device: 1e9)
    monkeypatch.setattr(timing, "matmul_ceiling", lambda device, dtype: 1e9)


def run_suite(case: str, **options: object) -> Suite:
    made = Suite(Options(CPU, only=case, seconds=1e-4, contestants=("eager", "cpu"), **options))  # type: ignore[arg-type]
    made.run()
    return made


def test_rows_of_a_right_contestant(square: None) -> None:
    done = run_suite("right")
    assert not done.failures
    assert {(row.direction, row.contestant, row.layout) for row in done.rows} == {
        (direction, contestant, layout)
        for direction in ("forward", "backward", "both")
        for contestant in ("eager", "cpu")
        for layout in ("NCHW", "NHWC")
    }
    for row in done.rows:
        assert row.q20_ms <= row.median_ms <= row.q80_ms
        assert row.rounds >= 5
        eager = next(r for r in done.rows if (r.direction, r.contestant, r.layout) == (row.direction, "eager", "NCHW"))
        assert row.speedup == pytest.approx(eager.median_ms / row.median_ms)
        assert row.ceiling_percent == pytest.approx(100 * row.bytes / 1e9 / (row.median_ms / 1e3))
    both = next(row for row in done.rows if row.direction == "both")
    assert (both.bytes, both.flops, both.bound) == (20, 10, "copy")


@pytest.mark.parametrize(
    ("case", "says"), [("off", "off by 1.0e-02"), ("nan", "off by nan"), ("raises", "RuntimeError: no such kernel")]
)
def test_a_red_check_writes_no_number(square: None, case: str, says: str) -> None:
    done = run_suite(case)
    assert {row.contestant for row in done.rows} == {"eager"}
    assert len(done.failures) == 6
    assert all("cpu" in failure.what for failure in done.failures)
    assert any(says in failure.why for failure in done.failures)
    assert tell(done, Console(quiet=True)) == 1


def test_the_baseline_is_measured_whatever_is_asked_for(square: None) -> None:
    made = Suite(Options(CPU, only="right", contestants=("cpu",), layouts=("NHWC",)))
    assert [(job.layout, job.context.contestants) for job in made.jobs] == [("NCHW", ("eager",)), ("NHWC", ("cpu",))]


def test_time_runs_out(square: None) -> None:
    done = run_suite("right", minutes=1e-9)
    assert not done.rows
    assert [str(job) for job in done.left_out] == ["square: right, float32, NCHW", "square: right, float32, NHWC"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError])
def test_what_was_measured_is_kept(square: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """After each job, and of the job that is interrupted."""
    made = Suite(Options(CPU, only="right", seconds=1e-4, contestants=("eager", "cpu")))
    measured, sizes = [], []

    def interrupted(trial: Trial, *arguments: object) -> runner.Result:
        measured.append(trial)
        if len(measured) == 8:  # a job has six
            raise error("stop")
        return runner.run(trial, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(suite, "run", interrupted)
    with pytest.raises(error, match="stop"):
        run_with_bar(made, Console(quiet=True), lambda: sizes.append(len(made.rows)))
    assert sizes == [6, 7]


def test_a_run_drops_the_rows_of_what_fails(square: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["bench", "--only", "off", "--seconds", "1e-4", "--layout", "NCHW", "--results", str(tmp_path)]
    arguments += ["--contestants", "eager", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "check", lambda trial: 0.0)
        assert main(arguments) == 0
    (path,) = tmp_path.iterdir()
    assert {row.contestant for row in read(path)} == {"eager", "cpu"}
    assert main(arguments) == 1
    assert {row.contestant for row in read(path)} == {"eager"}


def test_large_adds_what_takes_a_gpu_alone() -> None:
    def cases(**options: object) -> list[str]:
        return [job.case for job in suite.choose(Options(CPU, ("step", "startup"), **options))]  # type: ignore[arg-type]

    assert startup.INSTALL not in cases(large=True)
    assert set(cases(large=True)) - set(cases()) == {name for name, where in step.WHERE.items() if where == "gpu"}
    assert cases(only=startup.INSTALL) == [startup.INSTALL]


def test_integers_are_compared_exactly() -> None:
    def trial(found: Tensor) -> Trial:
        return Trial("cpu", "forward", lambda: [found], lambda: [torch.tensor([1, 2])], Cost(0, 0), 1.0)

    assert check(trial(torch.tensor([1, 2], dtype=torch.int32))) == 0
    with pytest.raises(CheckFailed):
        check(trial(torch.tensor([1, 3])))
    with pytest.raises(CheckFailed, match="shape"):
        check(trial(torch.tensor([1])))


def test_bytes_and_operations_counted_by_hand() -> None:
    case = NormCase(2, 3, 4, "relu", 1, residual=True)
    forward, backward = instance_norm_act.cost(case, torch.bfloat16)
    # x and residual of 24 elements, y of 2 * 5 * 6 = 60; backward dy, x, dx and the residual's gradient.
    assert forward == Cost((24 + 24 + 60) * 2, 24 * 8)
    assert backward == Cost((60 + 24 + 24 + 24) * 2, 24 * 10)
    # 5x7 -> 3x4 -> 2x2
    assert avg_pyramid.cost((1, 3, 5, 7), 4) == (Cost(3 * (35 + 12 + 4) * 4, 3 * 16 * 9),) * 2


@pytest.mark.parametrize("name", ["instance_mean", "instance_index", "encode_labels", "avg_pyramid"])
def test_contestants_of_an_op_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size that takes no time."""
    small = dict.fromkeys(("1024x512", "2048x1024"), (16, 32))
    for module in ("avg_pyramid", "encode_labels", "instance_mean", "instance_index"):
        monkeypatch.setattr(f"hdgan.benchmarks.works.{module}.SIZES", small)
    work = WORKS[name]
    contestants = tuple(name for name in ("eager", "cpu", "scatter") if name in work.contestants)
    for layout in ("NCHW", "NHWC"):
        trials = list(work.setup(next(iter(work.cases)), Context(CPU, torch.bfloat16, layout, contestants)))
        assert {trial.contestant for trial in trials} == set(contestants)
        for trial in trials:
            check(trial)


def test_instance_ids_are_like_cityscapes() -> None:
    for count in (10, 60, 400):
        ids = instance_ids(512, 1024, count)
        assert ids.shape == (1, 512, 1024)
        assert ids.unique().numel() == count
        assert ids.unique()[0] == 0
        assert ((ids < 34) | (ids >= 26000)).all()


REFUSED = {
    "unknown work": (["abacus"], "there is no work 'abacus': give instance_norm_act, "),
    "unknown contestant": (["--contestants", "abacus"], "--contestants abacus: give some of eager, "),
    "contestant of another device": (["--contestants", "cuda", "--device", "cpu"], "--contestants cuda: "),
    "NVIDIA's without a checkout": (["--contestants", "nvidia"], "by --reference"),
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
        suite.choose(Options(CPU, reference=tmp_path))


def test_every_pass_has_its_tolerance() -> None:
    assert set(runner.TOLERANCE) == set(runner.DTYPES.values())
