"""Draw docs/training/camvid-256x192.svg from the rows beside it: `python -m docs.pictures.camvid`."""

from __future__ import annotations

import csv
from pathlib import Path

from hdgan.reproduce.chart import write_chart
from hdgan.reproduce.conditions import COLUMNS

FILE = Path(__file__).parents[1] / "training/camvid-256x192.csv"
PHOTOS = "photos"
SHOWN = ("miou", "scorer_fid", "spectrum", "pattern")


def main() -> None:
    with FILE.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    runs = dict.fromkeys(line["run"] for line in lines if line["run"] != PHOTOS)
    panels = {
        COLUMNS[metric][0]: {run: [float(line[metric]) for line in lines if line["run"] == run] for run in runs}
        for metric in SHOWN
    }
    photos = next(line for line in lines if line["run"] == PHOTOS)
    write_chart(FILE.with_suffix(".svg"), panels, {COLUMNS["miou"][0]: float(photos["miou"])})


if __name__ == "__main__":
    main()
