"""What a release rests on: one version, a changelog, pinned versions, and workflows that name what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hdgan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
GROUPS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
"""Those of Keep a Changelog, in this order."""
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_workflow(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)  # BaseLoader: `on` stays text


CI = read_workflow(ROOT / ".github" / "workflows" / "ci.yml")


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci" / name, *arguments], capture_output=True, text=True, timeout=60)


def test_the_version_has_one_place() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = PROJECT["version"]
    assert Version(hdgan.__version__).public == version, "pip install -e . again: the installed version is another"
    assert citation["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, newest = re.findall(r"^## (.*)$", changelog, re.MULTILINE)[:2]
    assert (unreleased, newest) == ("Unreleased", f"{version} ({citation['date-released']})")
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_has_groups_in_order() -> None:
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        groups = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert groups == [group for group in GROUPS if group in groups]
    assert len(sections) >= 2


def test_notes_of_a_release() -> None:
    done = run_script("notes", f"v{PROJECT['version']}")
    assert done.returncode == 0, done.stderr
    assert "\n### Added\n" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith(("  ", "## "))]
    wrong = run_script("notes", "v99.1")
    assert wrong.returncode == 1
    assert "The tag is of version 99.1, but pyproject.toml says" in wrong.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_are_pinned_and_can_do_little(file: Path) -> None:
    text, workflow = file.read_text(encoding="utf-8"), read_workflow(file)
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line)] == []
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert int(job["timeout-minutes"]) > 0
        writes = [scope for scope, access in job.get("permissions", {}).items() if access == "write"]
        assert not writes or name in ("pypi", "github", "publish")
        assert not writes or "if" in job
    # One action has one version everywhere.
    every = {line for other in WORKFLOWS for line in re.findall(r"uses: (.*)", other.read_text(encoding="utf-8"))}
    assert len(every) == len({line.split("@")[0] for line in every})


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_name_what_there_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    scripts = set(re.findall(r"(?<![\w/])\.ci/[\w-]+(?![\w.-])", text))
    assert [name for name in sorted(scripts) if not os.access(ROOT / name, os.X_OK)] == []
    runs = "\n".join(step.get("run", "") for step in steps(read_workflow(file)))
    extras = {name for group in re.findall(r"\.\[([\w,-]+)\]", runs) for name in group.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])
    modules = [
        name for name in re.findall(r"python -m ([\w.]+)", runs) if name.split(".")[0] in ("docs", "hdgan", "tests")
    ]
    assert [name for name in modules if find_spec(name) is None] == []
    needed = [name for job in read_workflow(file)["jobs"].values() for name in as_list(job.get("needs", []))]
    assert set(needed) <= set(read_workflow(file)["jobs"])


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_every_supported_version_is_tested_and_built() -> None:
    matrix = CI["jobs"]["short"]["strategy"]["matrix"]
    listed = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", line)]
    assert matrix["python"] == listed
    assert PROJECT["requires-python"] == f">={listed[0]}"
    assert PYPROJECT["tool"]["cibuildwheel"]["build"] == [f"cp{name.replace('.', '')}-*" for name in listed]
    (torch,) = (line for line in PROJECT["dependencies"] if Requirement(line).name == "torch")
    oldest, newest = matrix["torch"]
    assert newest == "torch"
    assert Version(oldest.removeprefix("torch==")) in Requirement(torch).specifier
    assert oldest.removesuffix(".0") == torch.replace(">=", "==")


def test_constraints_fulfil_what_is_required() -> None:
    text = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    pinned = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert [str(pin) for pin in pinned if pin.url or not re.fullmatch(r"==[\w.]+", str(pin.specifier))] == []
    optional = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    wanted = [Requirement(line) for line in [*PROJECT["dependencies"], *optional] if not line.startswith("hdgan[")]
    assert len(pinned) > len(wanted)
    for python in CI["jobs"]["short"]["strategy"]["matrix"]["python"]:
        here = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
        versions = {
            canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
            for pin in pinned
            if pin.marker is None or pin.marker.evaluate(here)
        }
        missing = [
            str(line)
            for line in wanted
            if (line.marker is None or line.marker.evaluate(here))
            and versions.get(canonicalize_name(line.name), "0") not in line.specifier
        ]
        assert missing == [], f"on Python {python}; run .ci/lock"
