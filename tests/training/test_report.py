"""The report of a run, from made run folders."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, SizeConfig
from hdgan.errors import CheckpointError
from hdgan.families import Pix2PixHDStage, Pix2PixHDTrainConfig
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.penalty import R1Penalty
from hdgan.families.common.pool import FakePool
from hdgan.families.registry import FAMILIES
from hdgan.reporting.charts import Span, draw_charts
from hdgan.training import PRESETS, AugmentConfig, write_report
from hdgan.training.report import MOST_PIXELS, MOST_STEPS
from hdgan.training.run_folder import load_environment

LOSSES = {"g_gan": 0.5, "g_feature_matching": 4.0, "d_real": 0.25, "d_fake": 0.125, "lr": 2e-4}


class Page(HTMLParser):
    """The tags of a page, in order, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.html = file.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> dict[str, Image.Image]:
        """Embedded images by alternative text."""
        sources = {str(a["alt"]): str(a.get("src", "")) for tag, a in self.tags if tag == "img" and a["alt"]}
        return {
            alt: Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for alt, source in sources.items()
        }


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_metrics(run: Path, steps: dict[str, range]) -> None:
    records = [
        {"step": step, "stage": stage, **LOSSES, "images_per_second": 8.0}
        for stage, own in steps.items()
        for step in own
    ]
    last = records[-1]
    records.append({"step": last["step"], "stage": last["stage"], "val_l1": 0.1875})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def save_picture(file: Path, color: tuple[int, int, int], size: tuple[int, int] = (16, 8)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(file)


def save_samples(folder: Path, steps: range, size: tuple[int, int] = (16, 8)) -> None:
    for i, name in enumerate(("label", "instances", "real")):
        save_picture(folder / "inputs" / f"0_{name}.png", (50 * i, 10, 20), size)
    for step in steps:
        save_picture(folder / f"{step:08d}" / "0.png", (200, step % 256, 0), size)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two stages: 40 steps of 2 images, then 20 steps of 1."""
    folder = tmp_path / "streets"
    stages = {
        "global": Pix2PixHDStage(size=SizeConfig(width=16), batch_size=2, images=80),
        "joint": Pix2PixHDStage(n_enhancers=1, images=20),
    }
    write_json(folder / "config.json", to_plain(Pix2PixHDTrainConfig(stages=stages)))
    write_json(
        folder / "environment.json",
        {"torch": "2.6.0", "device": "A <fast> GPU", "steps": {"joint": "recompute off (it fits)"}},
    )
    write_json(folder / "checkpoints" / "best.json", {"step": 60, "stage": "joint", "val_l1": 0.1875})
    write_metrics(folder, {"global": range(1, 41), "joint": range(41, 61)})
    save_samples(folder / "samples" / "global", range(2, 41, 2))
    save_samples(folder / "samples" / "joint", range(60, 61))
    return folder


def test_report_needs_nothing_else(run):
    page = Page(write_report(run))
    assert "http" not in page.html
    assert not {"link", "script"} & {
        tag for tag, a in page.tags if (a.get("href") or a.get("src")) not in (None, "data:,")
    }
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    assert not re.search(r"url\((?!#)", page.html)


def test_report_tells_state_and_numbers(run):
    page = Page(write_report(run))
    text = " ".join(page.text.split())
    assert page.html.count('class="state finished"') == 1
    assert "Images seen100" in text
    assert "0.1875" in text
    assert "Training time≈ 12 s" in text
    assert "A <fast> GPU" in text
    assert "steps of stage joint" in text
    assert "recompute off (it fits)" in text
    assert "A <fast> GPU" not in page.html


def test_pictures_are_exact_and_described(run):
    pictures = Page(write_report(run)).pictures()
    assert pictures["label map of example 1, stage global"].getpixel((0, 0)) == (0, 10, 20)
    assert pictures["photo of example 1, stage joint"].getpixel((0, 0)) == (100, 10, 20)
    assert pictures["generated of example 1, stage global"].getpixel((0, 0)) == (200, 40, 0)
    strip = [alt for alt in pictures if alt.startswith("step") and alt.endswith("global")]
    assert len(strip) == MOST_STEPS
    assert strip[0].startswith("step 2 ")
    assert strip[-1].startswith("step 34 ")
    assert not [alt for alt in pictures if alt.startswith("step") and alt.endswith("joint")]


def test_large_pictures_are_reduced(run):
    save_samples(run / "samples" / "joint", range(60, 61), (1400, 700))
    page = Page(write_report(run))
    pictures = page.pictures()
    photo, label = (pictures[f"{name} of example 1, stage joint"] for name in ("photo", "label map"))
    assert photo.size == label.size == (MOST_PIXELS, MOST_PIXELS // 2)
    assert (photo.format, label.format) == ("JPEG", "PNG")
    assert label.getpixel((9, 9)) == (0, 10, 20)
    captions = [str(a["data-caption"]) for tag, a in page.tags if tag == "button"]
    assert "joint, example 1: photo (1400 \u00d7 700, shown at 640 \u00d7 320)" in captions
    assert "global, example 1: photo (16 \u00d7 8)" in captions


def test_no_picture_is_embedded_twice(run):
    page = Page(write_report(run))
    shown = [str(a["src"]) for tag, a in page.tags if tag == "img" and a.get("src") and "stage global" in str(a["alt"])]
    assert len(shown) == len(set(shown)) == 3 + 1 + MOST_STEPS


def test_charts_have_stages_and_colours_of_the_page(run):
    html = Page(write_report(run)).html
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(charts) == 4
    assert all(">global</text>" in chart and ">joint</text>" in chart for chart in charts)
    assert all("var(--curve-0)" in chart for chart in charts)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_run_in_progress(run):
    write_metrics(run, {"global": range(1, 22)})
    page = Page(write_report(run))
    assert "step 21 of 60" in page.text
    assert ("progress", {"value": "21", "max": "60", "aria-label": "progress"}) in page.tags


@pytest.mark.parametrize(("pictures", "state"), [(None, "step 60"), (20, "step 60 of 240"), (5, "finished")])
def test_length_of_epochs_follows_from_the_size_of_the_dataset(run, pictures, state):
    config = Pix2PixHDTrainConfig(data=DataConfig(root=Path("d")), stages={"global": Pix2PixHDStage(epochs=12)})
    write_json(run / "config.json", to_plain(config))
    write_json(run / "environment.json", {"training_pictures": pictures})
    assert f">{state}</span>" in write_report(run).read_text()


@pytest.mark.parametrize("content", [None, '{"architectures": ["cat"]}', "[" * 5000], ids=["none", "foreign", "deep"])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, content):
    save_samples(tmp_path / "samples" / "a", range(1, 3))
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="is not a training run: "):
        write_report(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_has_just_begun(tmp_path):
    write_json(tmp_path / "config.json", to_plain(Pix2PixHDTrainConfig(stages={"a": Pix2PixHDStage(images=9)})))
    page = Page(write_report(tmp_path))
    assert "No samples yet." in page.text
    assert "No metrics yet." in page.text


@pytest.mark.parametrize("kept", ["metrics.jsonl", "config.json"])
def test_each_other_part_may_be_missing(run, kept):
    for part in {"metrics.jsonl", "checkpoints/best.json", "environment.json", "config.json"} - {kept}:
        (run / part).unlink()
        assert "generated of example 1, stage joint" in Page(write_report(run)).pictures()


@pytest.mark.parametrize("content", ["", "[]", '{"unknown": 1}', "[" * 5000, '{"step": Infinity}'])
def test_parts_that_cannot_be_read_are_named(run, content):
    parts = ("config.json", "environment.json", "checkpoints/best.json")
    for part in parts:
        (run / part).write_text(content)
    page = Page(write_report(run))
    assert ">step 60</span>" in page.html
    assert '<div class="card"><dt>Best validation L1' not in page.html
    assert all(f"{run / part}" in page.text for part in parts)


def test_values_of_stages_of_different_size_are_not_to_be_compared(run):
    told = "Stages train at different sizes, so values of different stages cannot be compared"
    page = Page(write_report(run))
    assert page.text.count(told) == 2  # below the stages, and at the chart
    same = {name: Pix2PixHDStage(images=20, size=SizeConfig(width=16)) for name in ("global", "joint")}
    write_json(run / "config.json", to_plain(Pix2PixHDTrainConfig(stages=same)))
    assert told not in Page(write_report(run)).text


def test_a_stage_that_would_lead_out_of_the_run_is_refused(run):
    save_samples(run.parent / "secret", range(60, 61))
    write_metrics(run, {"../../secret": range(41, 61)})
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 1 is damaged \(stage is '../../secret'\)"):
        write_report(run)


@pytest.mark.parametrize("stop", [0, 1])
def test_first_lines_of_metrics(run, stop):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:stop]) + lines[stop][:20])
    page = Page(write_report(run))
    assert f"step {stop} of 60" in page.text
    assert page.html.count("<svg") == (3 if stop else 0)


def test_missing_and_damaged_pictures_are_left_out(run):
    (run / "samples" / "joint" / "inputs" / "0_real.png").write_bytes(b"\x89PNG")
    (run / "samples" / "joint" / "inputs" / "0_label.png").unlink()
    pictures = Page(write_report(run)).pictures()
    assert [alt for alt in pictures if alt.endswith("joint")] == [
        "instance map of example 1, stage joint",
        "generated of example 1, stage joint",
    ]


def test_names_are_escaped(tmp_path):
    run = tmp_path / "<b>bold & $x"
    stage = "<script>alert(1)&$"
    write_json(run / "config.json", to_plain(Pix2PixHDTrainConfig(out=run, stages={stage: Pix2PixHDStage(images=9)})))
    write_metrics(run, {stage: range(1, 9)})
    save_samples(run / "samples" / stage, range(4, 9, 4))
    page = Page(write_report(run))
    assert "<b>" not in page.html
    assert "<script>alert" not in page.html
    assert "<b>bold & $x" in page.text
    assert f"label map of example 1, stage {stage}" in page.pictures()


def test_only_changed_options_are_listed(run):
    write_json(run / "config.json", to_plain(PRESETS["demo"]()))
    page = Page(write_report(run))
    listed = page.html[page.html.index('class="options"') : page.html.index("<pre>")]
    assert re.search(r">generator\.ngf</th><td>32<small>default 64<", listed)
    assert "beta1" not in listed
    assert "beta1" in page.html


@pytest.mark.parametrize("name", ["pix2pix", "crn"])
def test_options_are_compared_with_those_of_the_family(run, name):
    write_json(run / "config.json", to_plain(PRESETS[name]()))
    page = Page(write_report(run))
    listed = page.html[page.html.index('class="options"') : page.html.index("<pre>")]
    assert ">root</th>" in listed
    assert not re.search(r">(family|gan|generator\.n-downs|feature-matching|vgg)</th>", listed)
    assert (">instances</th>" in listed) == (name == "pix2pix")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.config.family)
def test_every_loss_of_every_family_is_drawn_and_listed(family, tmp_path):
    adversarial = family.config.has_discriminator
    augment = AugmentConfig(("color",), adaptive=True) if adversarial else AugmentConfig()
    loss = family.train_config().loss
    criterion = loss.criterion(torch.nn.Linear(1, 1), FakePool(0), Augmentation(augment))
    names = (*criterion.names, R1Penalty.name) if adversarial else criterion.names
    record = {"stage": "a", "lr": 0.5, **{name: 1.125 + i for i, name in enumerate(names)}}
    charts = draw_charts([{"step": step, **record} for step in (1, 2)], [Span("a", 0, 2)])
    assert charts[-1].title == "Learning rate"
    assert sum(len(chart.curves) for chart in charts[:-1]) == len(names)
    for chart in charts:
        assert all(f"var(--curve-{i})" in chart.svg for i in range(len(chart.curves)))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 2, **record}) + "\n")
    page = Page(write_report(tmp_path))
    assert all(f"--curve-{i}: #" in page.html for chart in charts for i in range(len(chart.curves)))
    listed = {name: record[name] for name in names if name.startswith(("g_", "d_")) and name != "d_sign"}
    assert listed
    assert all(f"<span>{value:.3f}<small>" in page.html for value in listed.values())


def test_folder_must_exist(tmp_path):
    with pytest.raises(CheckpointError, match="nothing is not a folder"):
        write_report(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_photos_of_another_kind_are_named(stored_run: Path) -> None:
    kind = load_environment(stored_run).photos
    assert kind is not None
    said = Page(stored_run / "report.html").text
    assert f"Photos have {kind}. The samples show one or three of their channels in 8 bits." in said


def test_classes_are_named_with_their_colours(run):
    assert "<span>pavement</span>" in write_report(run).read_text()  # of the built-in scenes
    write_json(run / "config.json", to_plain(Pix2PixHDTrainConfig(data=DataConfig(root=Path("d")))))
    assert 'class="legend"' not in write_report(run).read_text()
    (run / "classes.csv").write_text("label,name,color\n0,<road>,#804080\n1,sky,\n")
    assert (
        '<span class="swatch" style="--color: #804080"></span><span>&lt;road&gt;</span>' in Page(write_report(run)).html
    )
    (run / "classes.csv").write_text("road\n")
    page = Page(write_report(run))
    assert f"{run}/classes.csv, line 1: the header is 'road'" in page.text
    assert 'class="legend"' not in page.html
