"""Networks that image metrics look through: each is made once for all rows, and so is its failure.

torchmetrics takes Inception and AlexNet, trained on ImageNet, from torch-fidelity and torchvision, and downloads their
weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.models.segmenter import Segmenter
from hdgan.weights import is_finite


class Missing(Exception):
    """A metric cannot be had; says why."""


class FeatureNetworks:
    """The networks of one evaluation, made when they are first asked for.

    Args:
        segmenter: hdgan's own scorer, if there is one.
        device: where they run.
    """

    def __init__(self, segmenter: Segmenter | None, device: torch.device) -> None:
        self.segmenter, self.device = segmenter, device
        self._made: dict[str, nn.Module | str] = {}

    def inception(self) -> Features:
        """Inception's 2048 features of pictures in [0, 1]; raises Missing."""
        return self._once("inception", self._inception)

    def lpips(self) -> Any:
        """torchmetrics' LPIPS, whose network is its `net`; raises Missing."""
        return self._once("lpips", self._lpips)

    def scorer(self) -> Features:
        """The pooled features of hdgan's own scorer; raises Missing."""
        return self._once("scorer", self._scorer)

    def _once(self, name: str, make: Callable[[], nn.Module]) -> Any:
        if name not in self._made:
            self._made[name] = _made_or_reason(make)
        made = self._made[name]
        if isinstance(made, str):
            raise Missing(made)
        return made

    def _inception(self) -> Features:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"]).to(self.device)
        return Features(lambda image: network((image * 255).round().byte()), 2048)

    def _lpips(self) -> nn.Module:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(self.device)

    def _scorer(self) -> Features:
        segmenter = self.segmenter
        if segmenter is None:
            raise Missing("needs the features of hdgan's own scorer: --train-scorer")
        return Features(lambda image: segmenter.pooled_features(image * 2 - 1), sum(segmenter.feature_channels))


class Features(nn.Module):
    """Features as torchmetrics asks for them: pictures [B, 3, H, W] in [0, 1] -> [B, num_features].

    Those of the last two tensors are kept: a photo is looked at once, though every row is compared with it, and a
    picture once for FID and KID.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self._kept = lru_cache(maxsize=2)(features)  # a tensor's hash is its identity

    def forward(self, image: Tensor) -> Tensor:
        return self._kept(image)


def _made_or_reason(make: Callable[[], nn.Module]) -> nn.Module | str:
    """A network, or why it cannot be had."""
    try:
        network = make()
        for name, value in network.state_dict().items():
            if not is_finite(value):
                return f"its network's {name} holds numbers that are NaN or infinite: delete the file of its weights"
        return network
    except Missing as missing:
        return str(missing)
    except ModuleNotFoundError:
        return "needs torchvision and torch-fidelity: pip install torchmetrics[image]"
    # torch.hub's wrong hash and another architecture are RuntimeErrors, damaged files in its cache any of the rest.
    except (OSError, RuntimeError, HTTPException, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        return f"its network's weights cannot be had ({' '.join(str(error).split()) or 'the file is damaged'})"
