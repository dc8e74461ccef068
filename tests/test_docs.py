"""The pages people read first: what they point to exists, and the commands they show are taken."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hdgan.training.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "design.md", ROOT / "docs" / "benchmarks.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_presets_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("hdgan-train ")]
    named = {words[1] for words in commands if not words[1].startswith("-")} - {"PRESET"}
    assert named
    assert named <= set(PRESETS)
