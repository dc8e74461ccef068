"""Give the objects of a street scene other styles: drawn at random, of a cluster, from a photo, and mixed.

    python examples/styles.py                         # a built-in scene, painted by the model that comes with hdgan
    python examples/styles.py --model runs/mine --files LABEL.png INSTANCE.png PHOTO.png --of-class 26

All pictures go into one sheet. Its rows, from the top: the label map, the photo, and pictures with the mean style of
each class and with the styles of the photo; styles drawn for each object; styles drawn for each class; one object in
the styles of its class's clusters and, last, of the photo; and a mixture that goes from drawn styles to the photo's.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import tyro
from PIL import Image

import hdgan
from hdgan.data import read_map, read_photo
from hdgan.data.colors import colorize_labels
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import save_png
from hdgan.inference import ImageRequest, Maps, to_pil
from hdgan.scenes import SPEC, render_scene
from hdgan.styles import Styles

GAP = 4


def largest_object(model: hdgan.Pipeline, maps: Maps, label: int) -> int:
    """The id of the instance of a class that has the most pixels."""
    areas = dict(zip(maps.index.ids.tolist(), maps.index.counts.tolist(), strict=True))
    own = [id for id, its_label in model.instances(maps).items() if its_label == label]
    if not own:
        raise DataError(f"{maps.name} has no object of class {label}: give another --of-class")
    return max(own, key=areas.__getitem__)


def rows_of(model: hdgan.Pipeline, maps: Maps, from_photo: Styles, one: int, columns: int) -> Iterator[list[Styles]]:
    """The styles of the pictures of each row. An instance without a style gets the mean of its class."""
    instances, bank = model.instances(maps), model.bank  # {id: class}, and the clusters of the classes
    drawn = [bank.sample(instances, seed=seed) for seed in range(columns)]
    yield [Styles(), from_photo]
    yield drawn
    yield [bank.sample(instances, seed=seed, per="class") for seed in range(columns)]
    n_clusters = len(bank.clusters.get(instances[one], ()))
    of_one = [bank.style(instances[one], k) for k in range(min(n_clusters, columns - 1))]
    yield [drawn[0].with_style(one, style) for style in (*of_one, from_photo.instances[one])]
    yield [drawn[0].mixed(from_photo, step / (columns - 1)) for step in range(columns)]


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Rows of pictures of one size below each other, with white gaps."""
    width, height = (side + GAP for side in rows[0][0].size)
    page = Image.new("RGB", (max(map(len, rows)) * width - GAP, len(rows) * height - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            page.paste(picture, (column * width, row * height))
    return page


def main(
    out: Path = Path("styles.png"),
    model: str = "demo",
    files: tuple[Path, Path, Path] | None = None,
    scene: int = 4,
    of_class: int = SPEC.classes.index("car"),
    columns: int = 5,
) -> None:
    """Write the sheet.

    Args:
        out: PNG file.
        model: Run, checkpoint or file of a model with clusters of styles, or demo.
        files: Label map, instance map and photo of a scene; without them, a built-in scene is shown.
        scene: Number of the built-in scene.
        of_class: Class whose largest object changes alone in the fourth row.
        columns: Pictures of a row, 2 or more.
    """
    if columns < 2:
        raise ConfigError(f"--columns is {columns}: give 2 or more")
    made = render_scene(0, "test", scene, width=256, height=128)  # arrays do as well as files
    label, ids, photo = files or (made.label, made.ids, made.photo)
    pipeline = hdgan.load(model)
    maps = pipeline.read(label, ids)  # once for all pictures
    one = largest_object(pipeline, maps, of_class)
    styles = list(rows_of(pipeline, maps, pipeline.encode(photo, maps), one, columns))
    requests = [ImageRequest(maps, styles=of_picture, seed=0) for row in styles for of_picture in row]
    pictures = (to_pil(generated.image) for generated in pipeline.stream(requests))
    rows = [[next(pictures) for _ in row] for row in styles]
    colors = colorize_labels(read_map(label), None if pipeline.classes is None else pipeline.classes.palette)
    save_png(sheet([[colors, read_photo(photo), *rows[0]], *rows[1:]]), out)
    print(f"{len(requests)} pictures; object {one} changes alone in the fourth row: {out}")


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except HdganError as error:
        sys.exit(f"error: {error}")
