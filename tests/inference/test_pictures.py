"""Images of a pipeline become files and Pillow images with the numbers that their pixels have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.data import read_stored_photo, to_unit_range
from hdgan.errors import ConfigError, DataError
from hdgan.families import EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.inference import Pipeline, to_pil
from hdgan.inference.pictures import save_picture


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_a_picture_is_a_pillow_image(channels: int, mode: str) -> None:
    values = torch.arange(channels * 20).view(channels, 4, 5)
    image = to_pil(values / 255)
    assert (image.mode, image.size) == (mode, (5, 4))
    assert np.array_equal(np.asarray(image).reshape(4, 5, channels), values.permute(1, 2, 0).numpy())


def test_what_is_no_picture_is_refused() -> None:
    for wrong in (torch.rand(1, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(DataError, match=r"the image has shape .* give one image of a pipeline, \[C, H, W\]"):
            to_pil(wrong)
    with pytest.raises(DataError, match="5 channels cannot be shown"):
        to_pil(torch.rand(5, 4, 4))


def test_a_pipeline_writes_its_pictures(tmp_path: Path) -> None:
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    config = Pix2PixHDConfig(
        n_labels=4, instances=False, image_depth="uint16", generator=small, encoder=EncoderConfig(nef=2)
    )
    pipeline = Pipeline(Pix2PixHD(config))
    picture = pipeline(np.zeros((8, 10), np.uint8))
    pipeline.save_image(picture, str(tmp_path / "new" / "picture.PNG"))
    stored = read_stored_photo(tmp_path / "new" / "picture.PNG")
    assert (stored.dtype, stored.shape) == (np.uint16, (8, 10, 3))
    assert np.abs((to_unit_range(stored) + 1) / 2 - picture.permute(1, 2, 0).numpy()).max() < 1 / 65535
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["picture.PNG"]
    with pytest.raises(DataError, match="give one image of a pipeline"):
        pipeline.save_image(picture[None], tmp_path / "batch.png")


def test_the_ending_has_to_fit(tmp_path: Path) -> None:
    picture = torch.rand(5, 6, 7)
    save_picture(picture, tmp_path / "five.tiff", "uint8")
    with Image.open(tmp_path / "five.tiff") as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("TIFF", 5)
    with pytest.raises(ConfigError, match=r"five\.png does not end in \.tif: images of 5 channels and uint8 .* TIF"):
        save_picture(picture, tmp_path / "five.png", "uint8")
    with pytest.raises(ConfigError, match=r"three\.jpg does not end in \.png: .* are written as PNG"):
        save_picture(picture[:3], tmp_path / "three.jpg", "uint16")
    assert [file.name for file in tmp_path.iterdir()] == ["five.tiff"]
