"""Pictures with chosen styles, in Python and by `hdgan generate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hdgan
from hdgan.commands.main import main
from hdgan.data import read_map
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.families import EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import save_model
from hdgan.inference import Pipeline, load
from hdgan.styles import Style, StyleBank, Styles

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pipeline(styled: Path) -> Pipeline:
    return hdgan.load(styled, device="cpu")


def generate(*arguments: object) -> int:
    return main(["generate", *map(str, arguments), "--device", "cpu"])


def refused(capsys: Capture, *arguments: object) -> str:
    capsys.readouterr()
    assert generate(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_instances_have_the_class_of_their_label(pipeline: Pipeline, label: Path, ids: Path) -> None:
    classes = pipeline.instances(label, ids)
    assert sorted(classes) == np.unique(read_map(ids)).tolist()
    assert all(of == (id // 1000 if id >= 1000 else id) for id, of in classes.items())
    with pytest.raises(DataError, match="is a batch of 2: give one map"):
        pipeline.instances(np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8))


def test_the_styles_of_a_photo_make_its_picture(pipeline: Pipeline, label: Path, ids: Path, photo: Path) -> None:
    styles = pipeline.encode(photo, label, ids)
    assert styles.instances.keys() == pipeline.instances(label, ids).keys()
    torch.testing.assert_close(pipeline(label, ids, styles=styles), pipeline(label, ids, photo=photo))


def test_styles_reach_every_pixel_of_their_instance(
    pipeline: Pipeline, label: Path, ids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = pipeline.model.generate
    monkeypatch.setattr(pipeline.model, "generate", lambda c, f, _: (seen.append(f), real(c, f))[1])
    classes = pipeline.instances(label, ids)
    chosen = min(classes)
    pipeline(label, ids, styles=Styles({chosen: Style(classes[chosen], (5.0, -5.0))}))
    pipeline(label, ids)
    inside = torch.from_numpy(read_map(ids).astype(np.int64)) == chosen
    assert seen[0][0, :, inside].t().unique(dim=0).tolist() == [[5, -5]]
    assert torch.equal(seen[0][0, :, ~inside], seen[1][0, :, ~inside])


def test_sampled_styles_make_different_pictures(pipeline: Pipeline, label: Path, ids: Path) -> None:
    instances = pipeline.instances(label, ids)
    pictures = [pipeline(label, ids, styles=pipeline.bank.sample(instances, seed)) for seed in (1, 2, 1)]
    assert torch.equal(pictures[0], pictures[2])
    assert not torch.allclose(pictures[0], pictures[1], atol=1e-4)


def test_a_batch_has_one_styles_for_each_map(pipeline: Pipeline, label: Path, ids: Path) -> None:
    maps = [np.stack([read_map(path)] * 2) for path in (label, ids)]
    instances = pipeline.instances(label, ids)
    styles = [pipeline.bank.sample(instances, seed) for seed in (1, 2)]
    both = pipeline(*maps, styles=styles)
    for k in range(2):
        torch.testing.assert_close(both[k], pipeline(label, ids, styles=styles[k]))
    torch.testing.assert_close(pipeline(*maps, styles=styles[0])[1], both[0])
    with pytest.raises(ConfigError, match="1 styles are given for 2 maps: give one for each"):
        pipeline(*maps, styles=styles[:1])


def test_a_model_without_label_maps_has_styles_by_id(photo: Path) -> None:
    torch.manual_seed(0)
    small, encoder = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1), EncoderConfig(nef=2, n_downsample=1)
    config = Pix2PixHDConfig(n_labels=0, feature_channels=2, instance_divisor=10, generator=small, encoder=encoder)
    pipeline = Pipeline(Pix2PixHD(config))
    ids = np.zeros((16, 32), np.int32)
    ids[:, 9:] = 34
    assert pipeline.instances(photo, ids) == {0: 0, 34: 3}
    styles = pipeline.encode(photo, photo, ids)
    torch.testing.assert_close(pipeline(photo, ids, styles=styles), pipeline(photo, ids, photo=photo))
    with pytest.raises(
        ConfigError, match=r"the mean styles of its classes: give a photo .* or a style for every instance"
    ):
        pipeline(photo, ids, styles=Styles({0: Style(0, (0.0, 0.0))}))


def test_what_does_not_fit_is_refused(pipeline: Pipeline, label: Path, ids: Path, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a photo and styles are given"):
        pipeline(label, ids, photo=photo, styles=Styles())
    with pytest.raises(CheckpointError, match="the styles are of encoder other, but the model has encoder"):
        pipeline(label, ids, styles=Styles({}, "other"))
    with pytest.raises(ConfigError, match="the model takes 2 finite numbers"):
        pipeline(label, ids, styles=Styles({0: Style(0, (1.0,))}))
    plain = tmp_path / "plain.safetensors"
    save_model(
        plain, Pix2PixHD(Pix2PixHDConfig(n_labels=4, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)))
    )
    for ask in (lambda model: model.bank, lambda model: model(label, ids, styles=Styles())):
        with pytest.raises(ConfigError, match=r"trained without features, so .* --model\.feature-channels 3"):
            ask(load(plain, device="cpu"))
    with pytest.raises(CheckpointError, match="not loaded from a file"):
        _ = Pipeline(pipeline.model).bank


def test_clusters_of_another_checkpoint_are_refused(run: Path, styled: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "step-00000009"
    with pytest.raises(CheckpointError, match=f"`hdgan styles encode {folder}` and then `hdgan styles cluster"):
        _ = load(run, device="cpu").bank
    copy = Path(shutil.copytree(styled, tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"made with step-00000009 of run \(encoder .*has encoder"):
        _ = load(copy, device="cpu", ema=False).bank


def test_variants_of_one_map(styled: Path, pipeline: Pipeline, label: Path, ids: Path, tmp_path: Path) -> None:
    sources = (styled, "--label", label, "--instance", ids, "--styles", "random")
    for name in ("a", "b"):
        assert generate(*sources, "--variants", 3, "--seed", 7, "--save-styles", "--out", tmp_path / name) == 0
    names = [f"s0_label_{k}.png" for k in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "a").glob("*.png")) == names
    made = [pixels(tmp_path / "a" / name) for name in names]
    assert not any(np.array_equal(made[i], made[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for k, name in enumerate(names):
        np.testing.assert_array_equal(pixels(tmp_path / "b" / name), made[k])
        styles = Styles.load(tmp_path / "a" / name.replace("png", "json"))
        assert styles == pipeline.bank.sample(pipeline.instances(label, ids), seed=7, variant=k)
    assert generate(*sources[:-1], tmp_path / "a/s0_label_2.json", "--out", tmp_path / "again.png") == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again.png"), made[1])


def test_variants_of_a_folder(styled: Path, dataset: Path, tmp_path: Path) -> None:
    folders = ("--label", dataset / "test_label", "--instance", dataset / "test_inst")
    assert (
        generate(styled, *folders, "--styles", "random-class", "--variants", 2, "--save-styles", "--out", tmp_path) == 0
    )
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["s0_1.png", "s0_2.png", "s1_1.png", "s1_2.png"]
    drawn = [Styles.load(tmp_path / f"{stem}_{k}.json").instances.values() for stem in ("s0", "s1") for k in (1, 2)]
    by_class = [{style.label: style for style in there} for there in drawn]
    assert all(style == by_class[k][style.label] for k, there in enumerate(drawn) for style in there)
    assert by_class[0] != by_class[1]
    assert all(by_class[2].get(of, style) == style for of, style in by_class[0].items())


def test_a_walk_from_styles_to_styles(styled: Path, label: Path, ids: Path, tmp_path: Path) -> None:
    sources = (styled, "--label", label, "--instance", ids)
    ends = [tmp_path / f"ends_{k}.json" for k in (1, 2)]
    out = tmp_path / "ends.png"
    assert generate(*sources, "--styles", "random", "--variants", 2, "--save-styles", "--out", out) == 0
    walk = ("--styles", ends[0], "--styles-to", ends[1], "--variants", 3, "--save-styles", "--out", tmp_path / "w.png")
    assert generate(*sources, *walk) == 0
    for k, end in ((1, 1), (3, 2)):
        np.testing.assert_array_equal(pixels(tmp_path / f"w_{k}.png"), pixels(tmp_path / f"ends_{end}.png"))
    first, last = map(Styles.load, ends)
    middle = Styles.load(tmp_path / "w_2.json")
    for id, style in middle.instances.items():
        expected = (np.array(first.instances[id].feature) + last.instances[id].feature) / 2
        np.testing.assert_allclose(style.feature, expected)


def test_chosen_clusters(styled: Path, pipeline: Pipeline, label: Path, ids: Path, photo: Path, tmp_path: Path) -> None:
    sources = (styled, "--label", label, "--instance", ids, "--save-styles")
    bank: StyleBank = pipeline.bank
    id, of = next((id, of) for id, of in pipeline.instances(label, ids).items() if len(bank.clusters[of]) > 1)
    expected = bank.style(of, 1)
    options: dict[str, tuple[object, ...]] = {"random": ("--styles", "random"), "photo": ("--photo", photo), "mean": ()}
    for name, more in options.items():
        assert generate(*sources, *more, "--clusters", id, 1, "--out", tmp_path / f"{name}.png") == 0
        styles = Styles.load(tmp_path / f"{name}.json")
        assert styles.instances[id] == expected
    plain = pipeline.encode(photo, label, ids)
    by_photo = Styles.load(tmp_path / "photo.json")
    assert {k: v for k, v in by_photo.instances.items() if k != id} == {
        k: v for k, v in plain.instances.items() if k != id
    }
    by_mean = json.loads((tmp_path / "mean.json").read_text())["instances"]
    assert by_mean.keys() == {str(id) for id in pipeline.instances(label, ids)}


def test_a_walk_from_the_mean_to_a_photo(styled: Path, label: Path, ids: Path, photo: Path, tmp_path: Path) -> None:
    sources = (styled, "--label", label, "--instance", ids, "--save-styles")
    assert generate(*sources, "--out", tmp_path / "mean.png") == 0
    assert generate(*sources, "--photo", photo, "--out", tmp_path / "photo.png") == 0
    (tmp_path / "none.json").write_text(json.dumps(Styles().to_plain()))
    for start in ("mean", "none"):
        ends = ("--styles", tmp_path / f"{start}.json", "--styles-to", tmp_path / "photo.json")
        assert generate(*sources, *ends, "--variants", 3, "--out", tmp_path / f"{start}_walk.png") == 0
        made = [pixels(tmp_path / f"{start}_walk_{k}.png") for k in (1, 2, 3)]
        np.testing.assert_array_equal(made[0], pixels(tmp_path / "mean.png"))
        np.testing.assert_array_equal(made[2], pixels(tmp_path / "photo.png"))
        assert not np.array_equal(made[0], made[1])
        assert not np.array_equal(made[1], made[2])


def test_complete_styles_make_the_same_picture(pipeline: Pipeline, label: Path, ids: Path, photo: Path) -> None:
    given = pipeline.encode(photo, label, ids)
    some = Styles({id: given.instances[id] for id in list(given.instances)[::2]} | {99999: Style(0, (0.0, 0.0))})
    whole = pipeline.complete(some, label, ids)
    assert whole.instances.keys() == given.instances.keys()
    assert whole.encoder == pipeline.encoder_id
    assert all(whole.instances[id] == given.instances[id] for id in list(given.instances)[::2])
    assert all(whole.instances[id] != given.instances[id] for id in list(given.instances)[1::2])
    torch.testing.assert_close(pipeline(label, ids, styles=whole), pipeline(label, ids, styles=some))


def test_an_instance_has_the_mean_of_the_class_that_most_of_it_has(pipeline: Pipeline) -> None:
    label = np.full((8, 16), 2, np.uint8)
    label[:3] = 1
    ids = np.full((8, 16), 77, np.int32)
    whole = pipeline.complete(Styles(), label, ids)
    assert pipeline.class_features is not None
    assert whole.instances == {77: Style(2, tuple(pipeline.class_features[2].tolist()))}
    torch.testing.assert_close(pipeline(label, ids), pipeline(label, ids, styles=whole))


def test_styles_of_another_map_are_refused(
    styled: Path, pipeline: Pipeline, label: Path, ids: Path, tmp_path: Path, capsys: Capture
) -> None:
    classes = pipeline.instances(label, ids)
    chosen = min(classes)
    wrong = {
        r"foreign.json has styles of instances 123456, but ": Styles({123456: Style(2, (1.0, 1.0))}),
        f"instance {chosen} is of class {classes[chosen]}, but its style is of class 3": Styles(
            {chosen: Style(3, (1.0, 1.0))}
        ),
    }
    for complaint, styles in wrong.items():
        styles.save(tmp_path / "foreign.json")
        line = refused(
            capsys,
            styled,
            "--label",
            label,
            "--instance",
            ids,
            "--styles",
            tmp_path / "foreign.json",
            "--out",
            tmp_path / "x.png",
        )
        assert complaint in line
    assert not (tmp_path / "x.png").exists()


def test_options_that_contradict_each_other(
    styled: Path, run: Path, label: Path, ids: Path, photo: Path, tmp_path: Path, capsys: Capture
) -> None:
    sources = (styled, "--label", label, "--instance", ids, "--out", tmp_path / "x.png")
    cases: dict[str, tuple[object, ...]] = {
        "--styles is pretty: give mean, random, random-class or a .json file": ("--styles", "pretty"),
        "--photo already sets the styles, so --styles random": ("--styles", "random", "--photo", photo),
        "--variants is 0: give a whole number from 1": ("--variants", 0),
        "--variants is 1000000000: give a whole number from 1 to 100000": ("--variants", 10**9),
        "--seed is -1": ("--styles", "random", "--seed=-1"),
        "--styles-to sets the end of a series": ("--styles-to", "b.json", "--variants", 3),
        "--variants 3 would all be identical": ("--variants", 3),
        "none.json does not exist": ("--styles", tmp_path / "none.json"),
        "has no instance 99, as --clusters asks for: it has 0, 1": ("--clusters", 99, 0),
        "class 0 has no cluster 9: it has 0 to": ("--clusters", 0, 9),
    }
    for complaint, options in cases.items():
        assert complaint in refused(capsys, *sources, *options)
    assert not (tmp_path / "x.png").exists()
    line = refused(capsys, run, *sources[1:], "--styles", "random")
    assert "styles.safetensors does not exist: create it with `hdgan styles encode " in line


def test_given_styles_are_never_overwritten(
    styled: Path, label: Path, ids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = (styled, "--label", label, "--instance", ids, "--save-styles", "--out", tmp_path / "x.png")
    assert generate(*sources, "--styles", "random") == 0
    kept = (tmp_path / "x.json").read_bytes()
    assert generate(*sources, "--styles", tmp_path / "x.json") == 2
    assert "x.json is an input and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "x.json").read_bytes() == kept
