"""Watch a folder of label maps, and write a picture of each new one.

    python examples/serve_folder.py --labels LABELS --instances INSTANCES --out PICTURES
    python examples/serve_folder.py --model runs/mine --labels LABELS --out PICTURES --once

An instance map has the name of its label map. A map is read once its files have kept their size and time for one
interval, so that half-written files are not; one that cannot be read is reported, and tried again when it changes.
A picture is there completely or not at all. Ctrl-C or SIGTERM ends the program, and a restart makes what is missing.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

import hdgan
from hdgan.errors import ConfigError, HdganError
from hdgan.inference import ImageRequest

Files = tuple[tuple[Path, int, int], ...]  # a label map, and maybe an instance map, each with its size and time


@dataclass(frozen=True, kw_only=True)
class Job(ImageRequest):
    target: Path  # the file of the picture


def find_maps(labels: Path, instances: Path | None, out: Path) -> dict[Path, Files]:
    """All maps whose files are there, by the files of their pictures."""
    found = {}
    for label in sorted(labels.glob("*.png")):
        paths = [label] if instances is None else [label, instances / label.name]
        with suppress(FileNotFoundError):  # its instance map is not there yet, or it has been moved away
            files = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
            if not label.name.startswith("."):  # as temporary files do
                found[out / f"{label.stem}.png"] = files
    return found


def jobs(model: hdgan.Pipeline, maps: dict[Path, Files]) -> Iterator[Job]:
    """Read maps; what is no map of the model is reported and left out."""
    for target, files in maps.items():
        try:
            yield Job(model.read(*(path for path, _, _ in files)), seed=0, target=target)
        except HdganError as error:
            print(f"left out: {error}", file=sys.stderr)


def main(
    labels: Path,
    out: Path,
    instances: Path | None = None,
    model: str = "demo",
    interval: float = 1.0,
    once: bool = False,
) -> None:
    """Serve until Ctrl-C.

    Args:
        labels: Folder of label maps, which are PNG.
        out: Folder for the pictures.
        instances: Folder of instance maps, for a model that was trained with them.
        model: Run, checkpoint or file of a model, or demo.
        interval: Seconds between two looks at the folder.
        once: End when each map that is there has been tried.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which raises KeyboardInterrupt, as Ctrl-C does
    for folder in filter(None, (labels, instances)):
        if not folder.is_dir() or os.path.realpath(folder) == os.path.realpath(out):
            raise ConfigError(f"{folder} is not a folder of maps alone: give one that exists and is not --out")
    pipeline = hdgan.load(model)
    before = find_maps(labels, instances, out)
    made = {target: target.stat().st_mtime_ns for target in before if target.exists()}  # by an earlier program
    handled = {target: before[target] for target, when in made.items() if when > max(t for *_, t in before[target])}
    while True:
        time.sleep(interval)
        now = find_maps(labels, instances, out)
        new = {target: files for target, files in now.items() if handled.get(target) != files == before.get(target)}
        with closing(pipeline.stream(jobs(pipeline, new))) as pictures:  # closing it waits for those in work
            for picture in pictures:
                pipeline.save_image(picture.image, picture.request.target)
                print(picture.request.target, flush=True)
        handled, before = handled | new, now
        if once and all(handled.get(target) == files for target, files in now.items()):
            return


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except KeyboardInterrupt:
        print("stopped")
    except HdganError as error:
        sys.exit(f"error: {error}")
