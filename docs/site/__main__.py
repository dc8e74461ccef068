"""Build the documentation: `python -m docs.site`, which needs `pip install -e ".[docs]"`.

The site is written to `build/site` and works without a server: open `build/site/index.html`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from docs.site.check import faults
from docs.site.sources import write_changed, write_sources

ROOT = Path(__file__).parents[2]
SOURCES, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
"""As `docs_dir` and `site_dir` in mkdocs.yml."""
ZENSICAL = [sys.executable, "-m", "zensical"]


def main() -> int:
    """Write the pages, then build or serve them.

    Returns:
        0 for a site without faults, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.site", description="Build the documentation in build/site.")
    parser.add_argument("--serve", action="store_true", help="serve the pages at localhost:8000 while they are edited")
    arguments = parser.parse_args()
    if find_spec("zensical") is None or find_spec("mkdocstrings") is None:
        parser.error('zensical or mkdocstrings is missing: pip install -e ".[docs]", with Python 3.11 or newer')
    write_sources(SOURCES)
    return serve() if arguments.serve else build()


def build() -> int:
    """Build the site and check it."""
    built = subprocess.run(
        [*ZENSICAL, "build", "--clean", "--strict"],
        cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip
    said = re.sub(r"\x1b\[[\d;]*m", "", built.stdout)
    if "Aborted because --strict" in said:
        said = said.partition("Traceback")[0]
    print(said, end="")
    if built.returncode:
        return 1
    unreadable = [line for line in said.splitlines() if line.startswith("griffe: ")]  # docstrings
    found = [*unreadable, *faults(SITE)]
    print("\n".join(found) or f"{SITE.relative_to(ROOT)}: {len(list(SITE.rglob('*.html')))} pages without faults")
    return 1 if found else 0


def serve() -> int:
    """Serve the site until Ctrl-C. Pages that are edited meanwhile are built again; the reference is not."""
    server = subprocess.Popen([*ZENSICAL, "serve"], cwd=ROOT)
    seen = time.time()
    try:
        while server.poll() is None:
            time.sleep(0.5)
            now = time.time()
            write_changed(SOURCES, since=seen)
            seen = now
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0
    return server.returncode


if __name__ == "__main__":
    sys.exit(main())
