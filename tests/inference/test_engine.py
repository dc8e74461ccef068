"""Images of many requests: those of single calls, in order, whatever is computed beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hdgan.errors import ConfigError, DataError
from hdgan.families import (
    CRNConfig,
    EncoderConfig,
    GeneratorConfig,
    ModelConfig,
    PatchConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    UNetConfig,
    build_model,
)
from hdgan.inference import Generated, ImageRequest, Maps, Pipeline, engine, load
from hdgan.inference.engine import SIDE_BY_SIDE, threads_for
from hdgan.ops import InstanceIndex
from hdgan.styles import Styles

HD = Pix2PixHDConfig(n_labels=4, instances=True, generator=GeneratorConfig(4, 1, 1, noise=0.5))
UNET = Pix2PixConfig(n_labels=4, instances=False, generator=UNetConfig(4, 3), discriminator=PatchConfig(4))
CONFIGS: dict[str, ModelConfig] = {
    "noise": HD,
    "features": replace(HD, feature_channels=2, encoder=EncoderConfig(nef=2, n_downsample=1)),
    "photos": replace(HD, n_labels=0, instances=False),
    "images": CRNConfig(n_labels=4, n_modules=3, width=1 / 64, n_images=2),
    "dropout": replace(UNET, norm="instance"),
    "batch norm": UNET,
}
BOTH = torch.zeros(2, 16, 32, dtype=torch.int64)
SIZES = ((16, 32), (16, 32), (16, 32), (17, 33), (16, 32))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The bits of an image can depend on the number of threads, of which calls and the engine then have as many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(config: ModelConfig) -> Pipeline:
    torch.manual_seed(0)
    model = build_model(config)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    means = torch.randn(4, config.feature_channels) if config.feature_channels else None
    return Pipeline(model, means)


def requests_of(config: ModelConfig) -> list[ImageRequest]:
    draw = torch.Generator().manual_seed(1)
    made = []
    for number, size in enumerate(SIZES):
        label = torch.randint(0, 4, size, generator=draw)
        source = label if config.n_labels else torch.rand(3, *size, generator=draw) * 2 - 1
        variant = number % 2 if config.variants != 1 else 0
        made.append(ImageRequest(source, label * 1000 if config.instances else None, seed=number // 2, variant=variant))
    return made


def called(pipeline: Pipeline, request: ImageRequest) -> Tensor:
    return pipeline(request.source, request.instance, seed=request.seed, variant=request.variant)


@pytest.mark.parametrize("name", CONFIGS)
def test_images_have_the_bits_of_calls(name: str) -> None:
    pipeline, requests = make(CONFIGS[name]), requests_of(CONFIGS[name])
    expected = [called(pipeline, request) for request in requests]
    state = torch.random.get_rng_state()
    made = list(pipeline.stream(iter(requests)))
    assert [one.request for one in made] == requests
    for one, image in zip(made, expected, strict=True):
        assert torch.equal(one.image, image)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("threads", [2, 3])
def test_images_side_by_side_have_the_bits_of_one_thread(threads: int) -> None:
    pipeline, requests = make(HD), 4 * requests_of(HD)
    expected = [called(pipeline, request) for request in requests]
    torch.set_num_threads(threads)
    made = list(pipeline.stream(requests))
    assert torch.get_num_threads() == threads
    assert all(torch.equal(one.image, image) for one, image in zip(made, expected, strict=True))


@pytest.mark.parametrize("name", ["noise", "features", "photos", "images"])
@pytest.mark.parametrize("batch_size", [2, 8])
def test_batches_change_an_image_by_rounding_only(name: str, batch_size: int) -> None:
    pipeline, requests = make(CONFIGS[name]), requests_of(CONFIGS[name])
    for request, one in zip(requests, pipeline.stream(requests, batch_size=batch_size), strict=True):
        torch.testing.assert_close(one.image, called(pipeline, request), rtol=0, atol=2e-4)


def test_batches_are_of_one_size_and_end_with_their_block() -> None:
    pipeline, sizes = make(HD), []
    image = pipeline.image
    pipeline.image = lambda *given, variant: sizes.append(len(given[0])) or image(*given, variant=variant)  # type: ignore
    list(pipeline.stream(requests_of(HD), batch_size=2))
    assert sizes == [2, 1, 1, 1]  # the third has a neighbour of its size only behind one of another
    sizes.clear()
    list(pipeline.stream(requests_of(HD), batch_size=8))
    assert sizes == [3, 1, 1]


@pytest.mark.parametrize("name", ["dropout", "batch norm"])
def test_models_whose_images_depend_on_their_batch_take_none(name: str) -> None:
    with pytest.raises(ConfigError, match="batch_size is 2, but images of this model depend on what else is in"):
        make(CONFIGS[name]).stream([], batch_size=2)
    with pytest.raises(ConfigError, match="batch_size is 0: give 1 or more"):
        make(CONFIGS[name]).stream([], batch_size=0)


def test_a_request_that_cannot_be_used_ends_the_stream_in_its_place() -> None:
    pipeline, requests = make(HD), requests_of(HD)
    faults = {
        "label 9": replace(requests[2], source=torch.full((16, 32), 9)),
        "is a batch of 2": replace(requests[2], source=BOTH, instance=BOTH),
        "seed is -1": replace(requests[2], seed=-1),
        "trained with instance maps": replace(requests[2], instance=None),
    }
    for text, wrong in faults.items():
        made: list[Generated] = []
        with pytest.raises((DataError, ConfigError), match=text):
            made.extend(pipeline.stream([*requests[:2], wrong, *requests[3:]]))
        assert len(made) == 2


def test_styles_are_chosen_by_a_function_of_the_maps(styled: Path, label: Path, ids: Path, photo: Path) -> None:
    pipeline = load(styled, device="cpu")
    maps = pipeline.read(label, ids)
    styles = pipeline.encode(photo, maps)
    seen: list[str] = []

    def choose(maps: Maps) -> Styles:
        seen.append(maps.name)
        return styles

    kinds = [
        ImageRequest(label, ids, styles=styles),
        ImageRequest(label, ids, photo=photo, styles=choose),
        ImageRequest(label, ids, photo=photo, styles=lambda maps: None),
        ImageRequest(maps),
    ]
    given, chosen, by_photo, mean = pipeline.stream(kinds)
    expected = pipeline(maps, styles=styles)
    assert torch.equal(given.image, expected)
    assert torch.equal(chosen.image, expected)
    assert (given.styles, chosen.styles, by_photo.styles) == (styles, styles, None)
    assert seen == [str(label)]
    assert torch.equal(by_photo.image, pipeline(maps, photo=photo))
    assert torch.equal(mean.image, pipeline(maps))
    with pytest.raises(ConfigError, match="both a photo and styles are given"):
        list(pipeline.stream([ImageRequest(label, ids, photo=photo, styles=styles)]))


def test_maps_are_read_once_for_images_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, (first, second, *_) = make(HD), requests_of(HD)
    read: list[object] = []
    read_maps = engine.read_maps
    monkeypatch.setattr(engine, "read_maps", lambda *given: read.append(given[0]) or read_maps(*given))
    wanted = [replace(first, variant=k) for k in range(3)] + [second]
    made = list(pipeline.stream(wanted))
    assert len(read) == 2
    assert len({one.image.numpy().tobytes() for one in made}) == 4


def test_requests_are_taken_as_they_are_needed() -> None:
    pipeline, (first, *_) = make(HD), requests_of(HD)
    taken: list[int] = []

    def endless() -> Iterator[ImageRequest]:
        while True:
            taken.append(len(taken))
            yield replace(first, source=first.source.clone(), seed=len(taken))  # type: ignore[union-attr]

    made = pipeline.stream(endless())
    for _ in range(3):
        next(made)
    made.close()  # type: ignore[attr-defined]
    assert len(taken) < 20


def test_large_images_have_several_cores() -> None:
    assert threads_for(256 * 128, 2) == 1
    assert threads_for(SIDE_BY_SIDE // 2, 2) == 1
    assert threads_for(2048 * 1024, 2) == 2
    assert threads_for(1024 * 512, 32) == 16
    assert threads_for(2048 * 1024, 32) == 32


def test_maps_go_to_a_device_with_what_is_known_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    pipeline, (request, *_) = make(CONFIGS["features"]), requests_of(CONFIGS["features"])
    maps = pipeline.read(request.source, request.instance)  # type: ignore[arg-type]
    assert maps.on(torch.device("cpu")) is maps
    index, classes = maps.index, maps.classes
    moved = maps.on(torch.device("meta"))
    parts = [moved.label, moved.ids, *moved.index]
    assert all(part is not None and part.is_meta for part in parts)
    assert isinstance(moved.index, InstanceIndex)
    assert moved.classes is classes
    assert len(pinned) == 2 + len(index)
    assert moved.on(torch.device("meta")).label is moved.label
