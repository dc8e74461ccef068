"""What the tests of whole runs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hdgan.training import loop, saving


@pytest.fixture(scope="module")
def plain_report() -> Iterator[None]:
    """Runs write a report without content: drawing charts takes longer than they do. Other tests draw them."""

    def write(run: Path) -> Path:
        (run / "report.html").write_text("report")
        return run / "report.html"

    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, saving):
            patch.setattr(module, "write_report", write)
        yield
