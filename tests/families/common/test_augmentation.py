"""The transforms of what D sees against plain ones, image by image, and the control of their probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.config.options import typed_as
from hdgan.errors import ConfigError
from hdgan.families.common.augmentation import WINDOW, Augmentation, AugmentConfig, Kind, Transform, sign_statistic
from hdgan.models.inputs import LabelInput
from hdgan.ops import label_planes
from hdgan.training import PRESETS

KINDS: tuple[Kind, ...] = ("color", "translation", "cutout")
ALL = AugmentConfig(policy=KINDS)
GO, HELD = torch.tensor(0.0), torch.tensor(1.0)


def images(batch: int = 4, channels: int = 3, height: int = 16, width: int = 24, **options: Any) -> Tensor:
    return torch.rand(batch, channels, height, width, **options) * 2 - 1


def drawn(config: AugmentConfig, x: Tensor, seed: int = 0) -> Transform:
    torch.manual_seed(seed)
    return Augmentation(config).draw(x)


def plainly_colored(image: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    """rand_brightness, rand_saturation and rand_contrast of the paper's code, for an image [C, H, W]."""
    image = image + brightness
    grey = image.mean(0, keepdim=True)
    image = (image - grey) * saturation + grey
    return (image - image.mean()) * contrast + image.mean()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_colors_are_those_of_the_paper(channels: int) -> None:
    x = images(64, channels, dtype=torch.float64)
    transform = drawn(AugmentConfig(policy=("color",)), x)
    assert transform.color is not None
    found = transform.image(x)
    for image, ours, *numbers in zip(x, found, *transform.color, strict=True):
        torch.testing.assert_close(ours, plainly_colored(image, *(number.item() for number in numbers)))
    for numbers, low, high in zip(transform.color, (-0.5, 0.0, 0.5), (0.5, 2.0, 1.5), strict=True):
        assert low <= numbers.min() < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < numbers.max() <= high


def plainly_translated(image: Tensor, down: int, right: int) -> Tensor:
    """Rows and columns of an image [C, H, W] moved by so many pixels, with zeros where nothing has moved to."""
    height, width = image.shape[1:]
    padded = F.pad(image, (width, width, height, height))
    return padded[:, height - down : 2 * height - down, width - right : 2 * width - right]


def test_translations_are_by_whole_pixels_up_to_an_eighth() -> None:
    x = images(150, 2, 8, 16)
    found = drawn(AugmentConfig(policy=("translation",)), x).image(x)
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-2, -1, 0, 1, 2)]
    seen = set()
    for image, ours in zip(x, found, strict=True):
        (shift,) = (shift for shift in shifts if torch.equal(ours, plainly_translated(image, *shift)))
        seen.add(shift)
    assert seen == set(shifts)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5), (1, 2)])
def test_a_rectangle_of_half_the_sides_is_cut_out_anywhere(height: int, width: int) -> None:
    """That of the paper's code, whose centre is anywhere in the image."""
    x = torch.ones(800, 1, height, width)
    found = drawn(AugmentConfig(policy=("cutout",)), x).image(x)
    rows, columns = int(height / 2 + 0.5), int(width / 2 + 0.5)
    possible = set()
    for row in range(height + 1 - rows % 2):
        for column in range(width + 1 - columns % 2):
            hole = torch.ones(height + 2 * rows, width + 2 * columns)
            top, left = rows + row - rows // 2, columns + column - columns // 2
            hole[top : top + rows, left : left + columns] = 0
            possible.add(tuple(hole[rows:-rows, columns:-columns].flatten().tolist()))
    seen = {tuple(image.flatten().tolist()) for image in found}
    assert seen == possible


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_is_transformed_with_its_own_probability(kind: Kind) -> None:
    x = images(4000, 3, 8, 8)
    found = drawn(AugmentConfig(policy=(kind,), probability=0.3), x).image(x)
    unchanged = (found == x).flatten(1).all(1).float().mean()
    by_chance = {"color": 0.0, "translation": 1 / 9, "cutout": 0.0}[kind]
    assert unchanged == pytest.approx(0.7 + 0.3 * by_chance, abs=0.03)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_probability_zero_nothing_changes(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x = images(8).to(dtype).contiguous(memory_format=memory_format)
    transform = drawn(replace(ALL, probability=0.0), x)
    assert torch.equal(transform.image(x), x.float())
    assert torch.equal(transform.condition(x), x)  # type: ignore[arg-type]
    assert transform.image(x).is_contiguous(memory_format=memory_format)


def test_turned_off_there_is_no_tensor_and_no_draw() -> None:
    x, before = images(), torch.get_rng_state()
    augmentation = Augmentation()
    transform = augmentation.draw(x)
    assert transform == Transform()
    label = LabelInput(label_planes(torch.zeros(1, 4, 4, dtype=torch.int64), None, 3))
    assert transform.image(x) is x
    assert transform.condition(x) is x
    assert transform.condition(label) is label
    assert (augmentation.names, augmentation.report([[x]], "lsgan"), augmentation.state()) == ((), [], {})
    assert torch.equal(torch.get_rng_state(), before)
    assert vars(augmentation).keys() == {"config", "names"}


@pytest.mark.parametrize("instances", [True, False])
def test_a_label_map_is_transformed_as_its_planes(instances: bool) -> None:
    """Where nothing is, there is no class and no boundary; what D looks up is what it would have read."""
    label, ids = torch.randint(-1, 6, (6, 16, 24)), torch.randint(3, (6, 16, 24))
    planes = label_planes(label, ids if instances else None, 5)
    transform = drawn(ALL, images(6))
    condition = LabelInput(planes, images(6, 2))
    found, dense = transform.condition(condition), transform.condition(condition.dense())
    assert isinstance(found, LabelInput)
    assert isinstance(dense, Tensor)
    assert found.planes.codes.dtype == torch.int32
    assert torch.equal(found.dense(), dense)
    assert transform.hidden is not None
    assert transform.hidden.flatten(1).any(1).all()
    assert not dense.masked_select(transform.hidden).any()
    with pytest.raises(ValueError, match="LabelInput: expected level 0, got 1"):
        transform.condition(LabelInput(planes, None, 1))


def test_condition_and_images_are_moved_alike() -> None:
    x = images(8)
    transform = drawn(replace(ALL, policy=("translation", "cutout")), x)
    assert torch.equal(transform.condition(x), transform.image(x))  # type: ignore[arg-type]
    colored = drawn(ALL, x)
    assert torch.equal(colored.image(x) == 0, transform.image(x) == 0)
    assert not torch.equal(colored.image(x), transform.image(x))
    assert not torch.equal(drawn(ALL, x, seed=1).image(x), colored.image(x))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gradients_of_both_orders(channels: int) -> None:
    x = images(2, channels, 4, 6, dtype=torch.float64, requires_grad=True)
    transform = drawn(ALL, x)
    assert torch.autograd.gradcheck(transform.image, (x,))
    assert torch.autograd.gradgradcheck(lambda x: transform.image(x).square(), (x,))


def outputs(*scores: Sequence[float]) -> list[list[Tensor]]:
    return [[torch.zeros(1), torch.tensor(score)] for score in scores]


def test_the_sign_statistic_is_about_the_middle_of_the_targets() -> None:
    """As many patches of a coarse scale count as much as the more of a fine one."""
    real = outputs([0.9, 0.6, 0.4, -3.0], [2.0, 0.7])
    assert sign_statistic(real, "lsgan") == 0.5
    assert sign_statistic(real, "vanilla") == 0.75
    assert sign_statistic(outputs([0.5]), "lsgan") == 0
    scores = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    found = sign_statistic([[scores]], "vanilla")
    assert (found.dtype, found.requires_grad) == (torch.float32, False)


def test_the_log_has_what_changes() -> None:
    real = outputs([0.9, 0.6])
    fixed, adaptive = Augmentation(ALL), Augmentation(replace(ALL, adaptive=True, probability=0.25))
    assert (fixed.names, adaptive.names) == (("d_sign",), ("d_sign", "augment_p"))
    assert [float(value) for value in fixed.report(real, "lsgan")] == [1]
    assert [float(value) for value in adaptive.report(real, "lsgan")] == [1, 0.25]
    assert fixed.state() == {}
    fixed.load((0.5, 0.5))
    assert fixed.probability == 1


@pytest.mark.parametrize(("signs", "towards"), [(1.0, 1.0), (0.7, 1.0), (0.5, 0.0), (-1.0, 0.0)])
def test_the_probability_goes_where_d_overfits_less(signs: float, towards: float) -> None:
    augmentation = Augmentation(AugmentConfig(policy=KINDS, adaptive=True, probability=0.5, target=0.6, speed=1000))
    before = 0.5
    for step in range(100):
        augmentation.adapt(torch.tensor(signs), 16, GO)
        found = augmentation.probability.item()
        assert 0 <= found <= 1
        if step * 16 > 3 * WINDOW and found != towards:  # the average has come near to its value
            assert abs(found - before) == pytest.approx(0.016)
            assert abs(found - towards) < abs(before - towards)
        before = found
    assert before == towards


def test_a_probability_rises_in_as_many_images_as_its_speed_says() -> None:
    """Also if a batch has more images than the average, and though a single image changes it by little."""
    slow = Augmentation(AugmentConfig(policy=KINDS, adaptive=True, target=-1.0, speed=10**9))
    slow.signs.fill_(1)
    for _ in range(1000):
        slow.adapt(torch.tensor(1.0), 1, GO)
    assert slow.probability.item() == pytest.approx(1e-6)
    fast = Augmentation(AugmentConfig(policy=KINDS, adaptive=True, speed=4000))
    fast.adapt(torch.tensor(1.0), 1000, GO)
    assert (fast.probability.item(), fast.signs.item()) == (0.25, 1)


def test_a_step_that_is_not_taken_changes_nothing() -> None:
    augmentation = Augmentation(AugmentConfig(policy=KINDS, adaptive=True, probability=0.5))
    augmentation.adapt(torch.tensor(float("nan")), 4, HELD)
    assert augmentation.state() == {"augmentation": (0.5, 0.0)}
    augmentation.adapt(torch.tensor(-1.0), 4, GO)
    assert augmentation.state()["augmentation"][0] < 0.5


def test_an_augmentation_goes_on_from_its_state_in_place() -> None:
    """A CUDA graph reads the probability where it was when the graph was captured."""
    one, other = (Augmentation(replace(ALL, adaptive=True)) for _ in range(2))
    for signs in (0.9, 1.0, 0.3):
        one.adapt(torch.tensor(signs), 77, GO)
    place = other.probability
    other.load(one.state()["augmentation"])
    for augmentation in (one, other):
        augmentation.adapt(torch.tensor(0.8), 5, GO)
    assert other.probability is place
    assert other.state() == one.state()


@pytest.mark.gpu
def test_a_graph_draws_with_the_probability_of_its_replay() -> None:
    augmentation = Augmentation(replace(ALL, adaptive=True, probability=0.0), torch.device("cuda"))
    x = images(64).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        augmentation.draw(x).image(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = augmentation.draw(x).image(x)
    graph.replay()
    assert torch.equal(found, x)
    augmentation.load((1.0, 0.0))
    torch.cuda.manual_seed(3)
    graph.replay()
    torch.cuda.manual_seed(3)
    torch.testing.assert_close(found, augmentation.draw(x).image(x))
    first = found.clone()
    graph.replay()
    assert not torch.equal(found, first)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"policy": ("colour",)}, r"--augment\.policy\[0\] is 'colour': give color or translation or cutout"),
        ({"policy": "color"}, r"--augment\.policy is 'color': give a list"),
        ({"policy": ("color", "cutout", "color")}, r"--augment\.policy contains color more than once: give each kind"),
        ({"policy": KINDS, "probability": 1.5}, r"--augment\.probability is 1\.5: give a number from 0 to 1"),
        ({"policy": KINDS, "adaptive": True, "target": 2.0}, r"--augment\.target is 2\.0: give a number from -1 to 1"),
        ({"policy": KINDS, "adaptive": True, "speed": 0}, r"--augment\.speed is 0: give a whole number from 1"),
        ({"policy": KINDS, "target": 0.5}, r"--augment\.target 0\.5 has no effect without --augment\.adaptive: "),
        ({"policy": KINDS, "speed": 10}, r"--augment\.speed 10 has no effect without --augment\.adaptive: set that"),
        ({"adaptive": True}, r"--augment\.adaptive has no effect without --augment\.policy: set that too, or use"),
        ({"probability": 0.5}, r"--augment\.probability 0\.5 has no effect without --augment\.policy: set that too"),
        ({"target": 0.5}, r"--augment\.target 0\.5 has no effect without --augment\.adaptive: set that too"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], complaint: str) -> None:
    with typed_as(), pytest.raises(ConfigError, match=rf"^{complaint}"):
        AugmentConfig(**options)


def test_augmentation_is_for_families_with_a_discriminator() -> None:
    for name in ("cityscapes-512p", "pix2pix"):
        assert replace(PRESETS[name](), augment=ALL).augment == ALL
    with pytest.raises(ConfigError, match=r"augment\.policy is color translation cutout, but the models of the family"):
        replace(PRESETS["crn"](), augment=ALL)


def test_where_a_probability_starts() -> None:
    assert ALL.start == 1
    assert replace(ALL, adaptive=True).start == 0
    assert replace(ALL, adaptive=True, probability=0.25).start == replace(ALL, probability=0.25).start == 0.25
