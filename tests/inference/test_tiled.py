"""An image that is generated in tiles is the image of the whole maps, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.data.images import from_unit_range
from hdgan.errors import ConfigError, DataError
from hdgan.families import (
    CRNConfig,
    EncoderConfig,
    GeneratorConfig,
    ModelConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    UNetConfig,
)
from hdgan.families.pix2pix.config import ResNetConfig
from hdgan.families.registry import build_model
from hdgan.inference import Pipeline
from hdgan.inference.large import find_areas
from hdgan.inference.memory import resident_bytes
from hdgan.inference.tiled import LEAST, TiledGenerator, TileOptions
from hdgan.styles.table import classes_of

HEIGHT, WIDTH, LABELS = 110, 147, 6
ROOM = 2 * LEAST


class Array:
    """A map or image in memory, as windows."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name, self._values = name, values
        self.height, self.width, *channels = values.shape
        self.channels, self.dtype = (channels or [1])[0], values.dtype

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return self._values[top:bottom, left:right]


def _blocks(high: int, side: int, seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, high, (HEIGHT // side + 1, WIDTH // side + 1))
    return np.kron(cells, np.ones((side, side), int))[:HEIGHT, :WIDTH]


LABEL = _blocks(LABELS, 16, 0).astype(np.uint8)
IDS = (LABEL + 1000 * _blocks(30, 24, 1)).astype(np.uint16)
PHOTO = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)

G1 = GeneratorConfig(ngf=4, n_downsample=2, n_blocks=2, n_enhancers=0)
G2 = GeneratorConfig(ngf=4, n_downsample=2, n_blocks=1, n_enhancers=2, n_blocks_local=1, upsample="resize", noise=0.5)
CONFIGS: dict[str, ModelConfig] = {
    "G1": Pix2PixHDConfig(n_labels=LABELS, feature_channels=0, generator=G1),
    "G2 with features": Pix2PixHDConfig(
        n_labels=LABELS, feature_channels=3, generator=G2, encoder=EncoderConfig(nef=2, n_downsample=1)
    ),
    "A->B with boundaries": Pix2PixHDConfig(n_labels=0, feature_channels=0, generator=G1),
    "U-Net": Pix2PixConfig(n_labels=LABELS, generator=UNetConfig(ngf=4, n_downs=4, dropout_levels=(0, 1))),
    "U-Net with instance norm": Pix2PixConfig(
        n_labels=LABELS, norm="instance", generator=UNetConfig(ngf=4, n_downs=4, dropout_levels=())
    ),
    "ResNet, A->B": Pix2PixConfig(n_labels=0, generator=ResNetConfig(ngf=4, n_blocks=2)),
    "CRN": CRNConfig(n_labels=LABELS, n_modules=4, width=0.01, n_images=2),
}


def pipeline_of(config: ModelConfig, **options: object) -> Pipeline:
    """A pipeline around weights of which each layer's output depends clearly on its input."""
    torch.manual_seed(0)
    model = build_model(config)
    for weight in model.parameters():
        if weight.dim() == 4:
            torch.nn.init.kaiming_normal_(weight)
    means = torch.rand(LABELS, config.feature_channels) if config.feature_channels else None
    return Pipeline(model, means, **options)  # type: ignore[arg-type]


def inputs_of(config: ModelConfig) -> tuple[np.ndarray, np.ndarray | None]:
    return (LABEL if config.n_labels else PHOTO), (IDS if config.instances or config.feature_channels else None)


def generated(pipeline: Pipeline, tiling: TileOptions, photo: np.ndarray | None = None, **options: int) -> np.ndarray:
    source, ids = inputs_of(pipeline.config)
    generate = TiledGenerator(pipeline, tiling)
    maps = generate.read(Array("source", source), None if ids is None else Array("ids", ids))
    made = generate(maps, photo=None if photo is None else Array("photo", photo), **options)
    assert (made.height, made.width, made.channels) == (HEIGHT, WIDTH, 3)
    return np.concatenate([made.rows(top, min(top + 40, HEIGHT)) for top in range(0, HEIGHT, 40)])


def whole(pipeline: Pipeline, photo: np.ndarray | None = None, **options: int) -> np.ndarray:
    source, ids = inputs_of(pipeline.config)
    image = pipeline(source, ids, photo=photo, **options)
    return from_unit_range(image * 2 - 1, pipeline.config.image_depth)


def in_memory(**options: object) -> TileOptions:
    return TileOptions(max_memory=resident_bytes() + ROOM, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("tile", [64, 37, None])
@pytest.mark.parametrize("name", CONFIGS)
def test_image_is_that_of_the_whole_maps(name: str, tile: int | None) -> None:
    config = CONFIGS[name]
    pipeline = pipeline_of(type(config)(**{**vars(config), "image_depth": "float32"}))
    options = {"seed": 5, "variant": 0 if config.variants == 1 else 1}
    difference = generated(pipeline, in_memory(tile=tile), **options) - whole(pipeline, **options)
    assert np.abs(difference).max() < 1e-4


def test_styles_are_those_of_a_photo() -> None:
    pipeline = pipeline_of(CONFIGS["G2 with features"])
    made = generated(pipeline, in_memory(tile=50), PHOTO, seed=1).astype(int)
    assert np.abs(made - whole(pipeline, PHOTO, seed=1)).max() <= 1
    assert np.abs(made - generated(pipeline, in_memory(tile=50), seed=1)).max() > 1


def test_bfloat16_is_as_near_as_the_whole_maps_are() -> None:
    config = CONFIGS["G1"]
    exact, narrow = pipeline_of(config), pipeline_of(config, precision="bfloat16")
    reference = whole(exact).astype(int)
    rounding = np.abs(whole(narrow) - reference).mean()
    assert 0 < np.abs(generated(narrow, in_memory(tile=64)) - reference).mean() < 1.5 * rounding


def test_pixels_beyond_the_memory_lie_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of(CONFIGS["G1"])
    expected = whole(pipeline)
    seen: list[tuple[str, float]] = []
    tiling = TileOptions(tile=64, max_memory=resident_bytes() + ROOM, scratch=tmp_path)
    generator = TiledGenerator(pipeline, tiling, lambda what, share: seen.append((what, share)))
    monkeypatch.setattr(generator, "_room", 100_000)
    made = generator(generator.read(Array("label", LABEL), Array("ids", IDS)))
    assert np.abs(made.rows(0, HEIGHT).astype(int) - expected).max() <= 1
    assert seen[-1] == ("generating", 1.0)
    assert [share for what, share in seen if what == "generating"] == sorted(
        share for what, share in seen if what == "generating"
    )
    assert {what for what, _ in seen} == {"reading the maps", "generating"}


def test_thumbnail_needs_no_disk_and_is_near(tmp_path: Path) -> None:
    pipeline = pipeline_of(CONFIGS["G1"])
    exact = whole(pipeline).astype(int)
    same = TileOptions(tile=64, max_memory=resident_bytes() + ROOM, statistics="thumbnail", thumbnail=10**6)
    assert np.abs(generated(pipeline, same) - exact).max() <= 1, "a thumbnail of full size has the exact statistics"
    small = TileOptions(
        tile=64, max_memory=resident_bytes() + ROOM, statistics="thumbnail", thumbnail=80, scratch=tmp_path
    )
    difference = np.abs(generated(pipeline, small) - exact).mean()
    assert 0.5 < difference < 30


def test_areas_have_the_classes_of_the_whole_map() -> None:
    config = Pix2PixHDConfig(n_labels=LABELS)
    pipeline = pipeline_of(CONFIGS["G2 with features"])
    label = (LABEL + (np.random.default_rng(4).random(LABEL.shape) < 0.4)) % LABELS  # several labels in an instance
    maps = pipeline.read(label, IDS)
    areas = find_areas(Array("label", label.astype(np.uint8)), Array("ids", IDS), config)
    assert areas.ids.tolist() == maps.index.ids.tolist()
    assert areas.counts.tolist() == maps.index.counts.tolist()
    assert areas.classes == classes_of(maps.index, torch.from_numpy(label)[None], 1000).tolist()


def test_unsuitable_input_is_refused_before_the_work(tmp_path: Path) -> None:
    pipeline = pipeline_of(CONFIGS["G1"])
    generate = TiledGenerator(pipeline, in_memory(tile=64))
    wrong = LABEL.copy()
    wrong[100, 140] = 77
    with pytest.raises(DataError, match=r"streets\.tif contains label 77, but the model has labels 0 to 5"):
        generate.read(Array("streets.tif", wrong), Array("ids", IDS))
    with pytest.raises(ConfigError, match="trained with instance maps: give one for streets"):
        generate.read(Array("streets", LABEL))
    with pytest.raises(DataError, match="streets is 147x110, but ids is 147x100: make them the same size"):
        generate.read(Array("streets", LABEL), Array("ids", IDS[:100]))
    with pytest.raises(ConfigError, match="trained without features"):
        generate(generate.read(Array("streets", LABEL), Array("ids", IDS)), photo=Array("photo", PHOTO))
    with pytest.raises(ConfigError, match=r"does not suffice: the program and the model take .*; give .* or more"):
        TiledGenerator(pipeline, TileOptions(max_memory=10**6))


def test_floats_have_to_be_in_the_range_of_the_training() -> None:
    config = replace(CONFIGS["ResNet, A->B"], instances=False)
    floats = Array("floats", PHOTO.astype(np.float32))
    free = TiledGenerator(pipeline_of(config), in_memory())
    assert free(free.read(floats)).channels == 3
    limited = TiledGenerator(pipeline_of(config, input_depth="uint8"), in_memory())
    with pytest.raises(DataError, match=r"floats: this input has values from \d+ to \d+; scale them to \[-1, 1\]"):
        limited(limited.read(floats))
    styled = TiledGenerator(pipeline_of(CONFIGS["G2 with features"]), in_memory())
    maps = styled.read(Array("label", LABEL), Array("ids", IDS))
    with pytest.raises(DataError, match=r"floats: this photo has values from \d+ to \d+; scale them to \[-1, 1\]"):
        styled(maps, photo=floats)


def test_full_disk_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of(CONFIGS["G1"])
    generate = TiledGenerator(pipeline, TileOptions(tile=64, max_memory=resident_bytes() + ROOM, scratch=tmp_path))
    monkeypatch.setattr(generate, "_room", 100)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(ConfigError, match=rf"of scratch files would be written to {tmp_path}, which has .* left"):
        generate(generate.read(Array("label", LABEL), Array("ids", IDS)))
