"""Which network a perceptual loss takes its features of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hdgan.errors import ConfigError
from hdgan.families import CRNLoss, Pix2PixHDLoss, Pix2PixLoss

FILE = Path("weights")


@pytest.mark.parametrize("loss", [Pix2PixHDLoss, CRNLoss])
def test_two_networks_are_refused(loss: type[Pix2PixHDLoss | CRNLoss]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.vgg_weights weights and loss\.scorer weights: .* leave one out"):
        loss(vgg_weights=FILE, scorer=FILE)
    assert loss(scorer=FILE).vgg_weights is None
    assert loss(vgg_weights=FILE).scorer is None


@pytest.mark.parametrize("network", [{"vgg_weights": FILE}, {"scorer": FILE}])
def test_a_network_without_its_loss_is_refused(network: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"weights has no effect with loss\.vgg 0; leave it out"):
        Pix2PixHDLoss(vgg=0.0, **network)


def test_networks_take_rgb_or_grey_photos() -> None:
    for channels in (1, 3):
        Pix2PixHDLoss().check_photos(channels)
        CRNLoss().check_photos(channels)
    Pix2PixHDLoss(vgg=0.0).check_photos(5)
    Pix2PixLoss().check_photos(5)
    with pytest.raises(ConfigError, match=r"the photos have 5 channels, .*RGB or grey images: set loss\.vgg 0"):
        Pix2PixHDLoss().check_photos(5)
    with pytest.raises(ConfigError, match=r"the photos have 2 channels, .*: train a model of another family"):
        CRNLoss().check_photos(2)
