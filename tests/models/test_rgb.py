from __future__ import annotations

import pytest
import torch

from hdgan.models.rgb import as_rgb


def test_rgb_stays_the_same_object():
    image = torch.rand(2, 3, 4, 5)
    assert as_rgb(image) is image


def test_grey_is_repeated():
    image = torch.rand(2, 1, 4, 5)
    assert torch.equal(as_rgb(image), torch.cat([image] * 3, dim=1))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_other_channels_are_refused(channels):
    with pytest.raises(ValueError, match=f"expected images of 1 or 3 channels, got {channels}"):
        as_rgb(torch.zeros(1, channels, 4, 5))
