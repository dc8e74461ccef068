"""Build the documentation: `python -m docs.site`, which needs `pip install -e ".[docs]"`.

The site is written to `build/site` and works without a server: open `build/site/index.html`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from docs.site.check import faults
from docs.site.sources import write_sources

ROOT = Path(__file__).parents[2]
SOURCES, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
"""As `docs_dir` and `site_dir` in mkdocs.yml."""


def main() -> int:
    """Write the pages, then build or serve them.

    Returns:
        0 for a site without faults, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.site", description="Build the documentation in build/site.")
    parser.add_argument("--serve", action="store_true", help="serve the pages at localhost:8000 instead")
    arguments = parser.parse_args()
    write_sources(SOURCES)
    program = [sys.executable, "-m", "zensical"]
    if arguments.serve:
        return subprocess.run([*program, "serve"], cwd=ROOT, check=False).returncode
    built = subprocess.run(
        [*program, "build", "--clean", "--strict"],
        cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip
    print(built.stdout, end="")
    if built.returncode:
        return 1
    found = [
        line for line in built.stdout.splitlines() if line.startswith("griffe: ")
    ]  # docstrings that it cannot read
    found += faults(SITE)
    print("\n".join(found) or f"{SITE.relative_to(ROOT)}: {len(list(SITE.rglob('*.html')))} pages without faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
