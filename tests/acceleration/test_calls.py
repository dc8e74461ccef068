"""The functions that an accelerated forward calls, on input that the ops do not take as the layers do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdgan.acceleration import accelerate, calls
from tests.acceleration.networks import Written, image


def both(module: Written, x: Tensor) -> tuple[Tensor, Tensor]:
    """The result of the original and of the accelerated module."""
    expected = module(x)
    accelerate(module)
    return expected, module(x)


def chain() -> Written:
    return Written(lambda m, x: m.pad(m.act(m.norm(m.conv(x)))), pad=nn.ReflectionPad2d(2))


def test_an_image_without_a_batch_dimension() -> None:
    expected, found = both(chain(), image(3, 12, 10))
    assert found.shape == (4, 16, 14)
    torch.testing.assert_close(found, expected)


def test_one_pixel_raises_as_before() -> None:
    module = Written(lambda m, x: m.act(m.norm(m.conv(x))))
    with pytest.raises(ValueError, match="more than 1 spatial element") as before:
        module(image(1, 3, 1, 1))
    accelerate(module)
    with pytest.raises(ValueError, match="more than 1 spatial element") as after:
        module(image(1, 3, 1, 1))
    assert str(after.value) == str(before.value)


def test_a_padding_that_is_too_large_raises_as_before() -> None:
    module = chain()
    accelerate(module)
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        module(image(1, 3, 2, 9))


def test_an_empty_batch_is_left_to_the_layers() -> None:
    module = Written(lambda m, x: m.act(m.norm(x)))
    errors = []
    for _ in range(2):
        try:
            errors.append(tuple(module(image(0, 4, 6, 6)).shape))
        except (RuntimeError, ValueError) as error:
            errors.append(str(error))
        accelerate(module)
    assert errors[0] == errors[1]


def test_a_residual_that_is_broadcast_or_of_another_dtype() -> None:
    for other in (image(4, 1, 1), image(2, 4, 12, 10, dtype=torch.float64)):
        module = Written(lambda m, x, other=other: m.act(m.norm(m.conv(x))) + m.other)
        module.register_buffer("other", other)
        expected, found = both(module, image())
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected)


def test_another_number_of_channels_than_the_norm_is_for() -> None:
    module = Written(lambda m, x: m.act(m.norm(x)))
    module.norm = nn.InstanceNorm2d(4, affine=True)
    accelerate(module)
    with pytest.raises(ValueError, match="num_features"):
        module(image())


def test_a_norm_alone_keeps_its_errors() -> None:
    norm = nn.InstanceNorm2d(3)
    expected = norm(image())
    assert [row.where for row in accelerate(norm).replaced] == [""]
    torch.testing.assert_close(norm(image()), expected)
    torch.testing.assert_close(norm(image(3, 4, 4)), nn.InstanceNorm2d(3)(image(3, 4, 4)))
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        norm(image(1, 3, 1, 1))


def test_poolings_in_pyramids_may_get_hooks() -> None:
    pools = [nn.AvgPool2d(3, 2, 1, count_include_pad=False) for _ in range(2)]
    expected = calls.pyramid(image(), pools)
    seen: list[int] = []
    pools[0].register_forward_hook(lambda *_: seen.append(1))
    found = calls.pyramid(image(), pools)
    assert seen == [1]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False, divisor_override=3),
        nn.AvgPool2d(2, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d((3, 3), (2, 1), 1, count_include_pad=False),
        nn.MaxPool2d(3, 2, 1),
    ],
)
def test_other_poolings_are_none_of_a_pyramid(pool: nn.Module) -> None:
    assert not calls.is_pyramid_pool(pool)
