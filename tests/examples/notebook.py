"""Run a notebook without Jupyter: `python -m tests.examples.notebook` renews the outputs of examples/tour.ipynb.

The code cells run one after another in one namespace. As in Jupyter, the output of a cell is what it prints and, if it
ends in an expression, the value of that. Pillow images are stored as JPEG, which keeps the notebook small.
"""

from __future__ import annotations

import ast
import base64
import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hdgan.files import write_text

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"
QUALITY = 95


@dataclass(frozen=True)
class CellOutput:
    """What a cell printed, and the value that it ended in."""

    text: str
    value: object


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells with code, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cells(notebook: dict[str, Any]) -> list[CellOutput]:
    """Run the code cells in the current folder."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    outputs = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        tree = ast.parse("".join(cell["source"]), f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        value = None
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(tree, f"cell {number}", "exec"), namespace)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
        outputs.append(CellOutput(printed.getvalue(), value))
    return outputs


def stored_output(cell: dict[str, Any]) -> CellOutput:
    """The output that a notebook holds for a cell."""
    text, value = "", None
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            text += "".join(output["text"])
        elif "image/jpeg" in output["data"]:
            value = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/jpeg"])))
    return CellOutput(text, value)


def _as_stored(output: CellOutput, number: int) -> list[dict[str, Any]]:
    """An output in the notebook's format."""
    stored: list[dict[str, Any]] = []
    if output.text:
        lines = output.text.splitlines(keepends=True)
        stored.append({"name": "stdout", "output_type": "stream", "text": lines})
    if output.value is not None:
        if isinstance(output.value, Image.Image):
            buffer = io.BytesIO()
            output.value.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
            text = "<image of {}x{} pixels>".format(*output.value.size)
            data = {"image/jpeg": base64.b64encode(buffer.getvalue()).decode(), "text/plain": [text]}
        else:
            data = {"text/plain": [repr(output.value)]}
        stored.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return stored


def renew(path: Path) -> None:
    """Run a notebook and store its outputs."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for number, (cell, output) in enumerate(zip(code_cells(notebook), run_cells(notebook), strict=True), start=1):
        cell["execution_count"], cell["outputs"] = number, _as_stored(output, number)
    write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    renew(TOUR)
