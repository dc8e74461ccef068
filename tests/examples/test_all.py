"""What all examples have in common."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(file.stem for file in EXAMPLES.glob("*.py"))
MOST_LINES = 100


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_explains_itself(
    name: str, example: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(text)) or "")
    module = example(name)
    with pytest.raises(SystemExit) as stop:
        tyro.cli(module.main, args=["--help"], description=module.__doc__)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for parameter in inspect.signature(module.main).parameters:
        assert f"--{parameter.replace('_', '-')}" in shown
        assert re.search(
            rf"^        {parameter}: [A-Z]|^        {parameter}: cpu", inspect.getsource(module.main), re.M
        )


def test_the_readme_shows_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for file in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")):
        assert f"]({file.name})" in page
