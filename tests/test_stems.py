"""One stem an op, in all languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.benchmarks.cases import BENCHMARKS

ROOT = Path(__file__).parent.parent
STEMS = sorted(path.stem for path in (ROOT / "hdgan" / "ops").glob("[!_]*.py"))


def test_there_are_ops() -> None:
    assert {"avg_pyramid", "encode_labels"} <= set(STEMS)


@pytest.mark.parametrize("stem", STEMS)
def test_an_op_has_a_file_of_its_name_in_every_language(stem: str) -> None:
    expected = [
        f"csrc/{stem}.cpp",
        f"csrc/{stem}.cu",
        f"kernels/{stem}.py",
        f"tests/ops/test_{stem}.py",
        f"benchmarks/cases/{stem}.py",
    ]
    assert [name for name in expected if not (ROOT / name).is_file()] == []


def test_benchmarks_are_found_in_their_folder_ops_first() -> None:
    assert list(BENCHMARKS)[: len(STEMS)] == STEMS
    assert {"G1", "residual_block", "step", "data_loading", "startup"} <= set(BENCHMARKS)


def test_kernels_belong_to_ops() -> None:
    assert {path.stem for path in (ROOT / "kernels").glob("[!_]*.py")} - {"common"} <= set(STEMS)
    assert {path.stem for path in (ROOT / "csrc").glob("*.cpp")} - {"bindings"} <= set(STEMS)
    assert {path.stem for path in (ROOT / "csrc").glob("*.cu")} <= set(STEMS)


@pytest.mark.parametrize("name", ["benchmarks", "kernels"])
def test_linked_folders_are_those_of_the_package(name: str) -> None:
    link = ROOT / "hdgan" / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == (ROOT / name).resolve()
