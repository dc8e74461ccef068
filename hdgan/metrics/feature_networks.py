"""The networks whose features image metrics compare. Each is loaded once for all rows; if that fails, its reason is
kept.

torchmetrics takes Inception and AlexNet, trained on ImageNet, from torch-fidelity and torchvision. These download their
weights into the folder of torch.hub (`$TORCH_HOME/hub/checkpoints`), unless the files are there already. Where nothing
can be downloaded, they can be put there by hand. LPIPS' own weights come with torchmetrics.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.models.segmenter import Segmenter
from hdgan.weights import is_finite

WEIGHTS_URLS = {
    "inception": (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    ),
    "lpips": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
}
"""The weights of the networks that are downloaded."""


class Unavailable(Exception):
    """A metric is not available; the message is the reason."""


class FeatureNetworks:
    """The networks of one evaluation, created on first use.

    Args:
        segmenter: hdgan's own scorer, or None.
        device: on which they run.
    """

    def __init__(self, segmenter: Segmenter | None, device: torch.device) -> None:
        self.segmenter, self.device = segmenter, device
        self._made: dict[str, nn.Module | str] = {}

    def inception(self) -> Features:
        """Inception's 2048 features of images in [0, 1]; raises Unavailable."""
        return self._once("inception", self._inception)

    def lpips(self) -> Any:
        """torchmetrics' LPIPS, whose network is the attribute `net`; raises Unavailable."""
        return self._once("lpips", self._lpips)

    def scorer(self) -> Features:
        """The pooled features of hdgan's own scorer; raises Unavailable."""
        return self._once("scorer", self._scorer)

    def _once(self, name: str, make: Callable[[], nn.Module]) -> Any:
        if name not in self._made:
            self._made[name] = _made_or_reason(make, WEIGHTS_URLS.get(name, ""))
        made = self._made[name]
        if isinstance(made, str):
            raise Unavailable(made)
        return made

    def _inception(self) -> Features:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"]).to(self.device)
        return Features(lambda image: network((image * 255).round().byte()), 2048)

    def _lpips(self) -> nn.Module:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True, sync_on_compute=False).to(
            self.device
        )

    def _scorer(self) -> Features:
        segmenter = self.segmenter
        if segmenter is None:
            raise Unavailable("needs the features of hdgan's own scorer: --train-scorer")
        return Features(lambda image: segmenter.pooled_features(image * 2 - 1), sum(segmenter.feature_channels))


class Features(nn.Module):
    """Features in the form that torchmetrics expects: images [B, 3, H, W] in [0, 1] -> [B, num_features].

    Those of the last two tensors are kept, so that the network runs once per photo, although every row is compared with
    it, and once per image for both FID and KID.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self._kept = lru_cache(maxsize=2)(features)  # tensors are hashed by identity

    def forward(self, image: Tensor) -> Tensor:
        return self._kept(image)


def _made_or_reason(make: Callable[[], nn.Module], url: str) -> nn.Module | str:
    """A network whose weights come from a URL, or the reason why it is not available."""
    try:
        network = make()
        for name, value in network.state_dict().items():
            if not is_finite(value):
                return f"its network's {name} contains NaN or infinite values: delete the file of its weights"
        return network
    except Unavailable as reason:
        return str(reason)
    except ModuleNotFoundError:
        return "needs torchvision and torch-fidelity: pip install torchmetrics[image]"
    # A wrong hash in torch.hub and weights of another architecture are RuntimeErrors. Damaged files in its cache raise
    # any of the others.
    except (OSError, RuntimeError, HTTPException, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        why = " ".join(str(error).split()) or "the file is damaged"
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        remedy = f": put the file of {url} into {folder}" if url else ""
        return f"its network's weights could not be loaded ({why}){remedy}"
