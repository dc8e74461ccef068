"""The model card: the README.md of a model on the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from hdgan.data import SizeConfig
from hdgan.data.spec import DatasetSpec
from hdgan.families import ModelConfig
from hdgan.families.registry import family_of
from hdgan.hub import PREFIX
from hdgan.reporting.chart_specs import VALIDATION_TITLES
from hdgan.wording import count, markdown_table


@dataclass(frozen=True)
class CardFacts:
    """What a card says about a model."""

    repository: str
    """OWNER/NAME."""
    config: ModelConfig
    metadata: Mapping[str, Any]
    """Of the model's file, with the training."""
    parameters: int
    """Of the generator."""
    size: SizeConfig | None = None
    """To which the training images were scaled."""
    on_scenes: bool = False
    """Whether it was trained on the built-in scenes."""
    classes: DatasetSpec | None = None
    """Names and colours of the classes, where they are known."""
    clusters: int = 0
    """Of styles, in all classes."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Values of these weights on validation images by their names in best.json."""
    samples: Sequence[str] = ()
    """Pictures in the folder samples beside the card."""
    license: str | None = None
    datasets: Sequence[str] = ()
    """Of the hub."""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, with the metadata that the hub reads as YAML above it."""
    parts = [_header(facts), f"# {facts.repository.partition('/')[2]}", _summary(facts), _usage(facts)]
    if facts.samples:
        shown = "\n\n".join(f"![input and generated image](samples/{name})" for name in facts.samples)
        parts.append(f"## Samples\n\nThe input on the left, the generated image on the right.\n\n{shown}")
    parts.append(f"## Training\n\n{markdown_table(['', ''], _training(facts))}")
    if facts.classes is not None:
        named = enumerate(zip(facts.classes.classes, facts.classes.css_colors, strict=True))
        lines = [[str(label), name, f"`{color}`"] for label, (name, color) in named]
        parts.append(f"## Classes\n\n{markdown_table(['label', 'class', 'colour'], lines)}")
    return "\n\n".join(parts) + "\n"


def _header(facts: CardFacts) -> str:
    """YAML, of which JSON is a part."""
    fields: dict[str, Any] = {
        "library_name": "hdgan",
        "pipeline_tag": "image-to-image",
        "license": facts.license,
        "datasets": list(facts.datasets) or None,
        "tags": ["hdgan", facts.config.family, "gan", "image-synthesis"],
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items() if value is not None]
    return "\n".join(["---", *lines, "---"])


def _summary(facts: CardFacts) -> str:
    config = facts.config
    source = f"label maps of {config.n_labels} classes" if config.n_labels else "images"
    with_ids = " and instance maps" if config.instances else ""
    data = ", trained on the street scenes that hdgan draws" if facts.on_scenes else ""
    family = family_of(config).title
    return f"A {family} model that generates images from {source}{with_ids}{data}. It was made with hdgan."


def _usage(facts: CardFacts) -> str:
    config, name = facts.config, f"{PREFIX}{facts.repository}"
    source = "label" if config.n_labels else "input"
    given = [f'"{source}.png"', *(['"instances.png"'] if config.instances else [])]
    options = f"--{source} {source}.png" + (" --instance instances.png" if config.instances else "")
    needed = ['It needs hdgan and huggingface_hub: `pip install -e ".[hub]"` in a checkout of hdgan.']
    if config.n_labels:
        needed.append(f"A label map is an image of one channel whose numbers, 0 to {config.n_labels - 1}, are classes.")
    if config.instances:
        needed.append("In an instance map, the pixels of each object have a number of their own.")
    if facts.clusters:
        needed.append("`--styles random` draws a style for each object; without it, each class has its mean style.")
    return f"""## Use

{" ".join(needed)}

```python
import hdgan

model = hdgan.load("{name}")
image = model({", ".join(given)})   # [{config.image_channels}, H, W] in [0, 1]
```

or

```
hdgan generate {name} {options} --out image.png
```"""


def _training(facts: CardFacts) -> list[list[str]]:
    metadata, size = facts.metadata, facts.size
    rows = [["parameters of the generator", f"{facts.parameters:,}"]]
    if isinstance(step := metadata.get("step"), int):
        rows.append(["steps", f"{step:,}"])
    if size is not None and (size.width or size.height):
        sides = {"wide": size.width, "high": size.height}
        rows.append(["size of the images", ", ".join(f"{n} pixels {side}" for side, n in sides.items() if n)])
    if facts.clusters:
        rows.append(["styles", f"{count(facts.clusters, 'cluster')}"])
    for name, value in facts.measured.items():
        rows.append([VALIDATION_TITLES.get(name.removeprefix("val_"), name), f"{value:.4g}"])
    return [*rows, ["hdgan", version("hdgan")]]
