"""The text of a model card."""

from __future__ import annotations

import yaml

from hdgan.commands.push_card import CardFacts, model_card
from hdgan.data import SizeConfig
from hdgan.data.spec import DatasetSpec
from hdgan.families import Pix2PixConfig, Pix2PixHDConfig


def test_a_card_of_a_model_of_images_says_only_what_is_known() -> None:
    config = Pix2PixConfig(n_labels=0, input_channels=3, image_channels=5, instances=False)
    card = model_card(CardFacts("jane/edges-2", config, {"source": "elsewhere"}, parameters=1234567))
    header, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(header) == {
        "library_name": "hdgan",
        "pipeline_tag": "image-to-image",
        "tags": ["hdgan", "pix2pix", "gan", "image-synthesis"],
    }
    assert body.startswith(
        "\n# edges-2\n\nA pix2pix model that generates images from images. It was made with hdgan.\n"
    )
    assert 'image = model("input.png")   # [5, H, W] in [0, 1]' in body
    assert "hdgan generate hf:jane/edges-2 --input input.png --out image.png" in body
    assert "| parameters of the generator | 1,234,567 |\n| hdgan | " in body
    assert not any(word in body for word in ("Samples", "Classes", "steps", "size", "validation"))


def test_a_card_lists_what_is_known() -> None:
    facts = CardFacts(
        "jane/streets",
        Pix2PixHDConfig(n_labels=2),
        {"step": 12000},
        parameters=9,
        size=SizeConfig(width=1024, height=512),
        on_scenes=True,
        classes=DatasetSpec.of_colors(("road", "sky"), ((128, 64, 128), (0, 0, 255))),
        clusters=20,
        measured={"val_l1": 0.123456, "val_miou": 0.5},
        samples=("1.png",),
        license="mit",
    )
    card = model_card(facts)
    for text in (
        "from label maps of 2 classes and instance maps, trained on the street scenes that hdgan draws.",
        'image = model("label.png", "instances.png")   # [3, H, W] in [0, 1]',
        "![input and generated image](samples/1.png)",
        "| steps | 12,000 |\n| size of the images | 1024 pixels wide, 512 pixels high |\n| styles | 20 clusters |",
        "| validation L1 | 0.1235 |\n| validation mean IoU | 0.5 |",
        "| 0 | road | `#804080` |\n| 1 | sky | `#0000ff` |",
    ):
        assert text in card
