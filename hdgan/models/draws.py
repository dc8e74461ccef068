"""What networks draw at random: Gaussian noise, and which features dropout keeps.

Usually PyTorch's generator draws it. An exported program has no such generator, and other runtimes have others. There,
`SeededDraws` computes the numbers from a seed with integers only, so that a seed means one picture in every runtime.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

DROPOUT = 0.5
"""The share of features that dropout drops."""
PRIME = 2147483579
"""The largest prime below 2^31 that leaves 2 modulo 3, so that cubing permutes the numbers below it. The products that
`_mixed` forms stay below 2^62."""
_KEYS = (1298726519, 713906953, 2021379817)
"""Numbers without a pattern, one for each round."""
_LOW = 2**16


class Draws:
    """Numbers of PyTorch's generator of the device."""

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Independent numbers of the standard normal distribution, [B, …] in dtype and on the device of `like`."""
        return torch.randn(*shape, dtype=like.dtype, device=like.device)

    def dropout(self, h: Tensor) -> Tensor:
        """[B, …] with half of its numbers dropped and the others doubled."""
        return F.dropout(h, DROPOUT, training=True)


class ImageDraws(Draws):
    """Numbers of PyTorch's generators, one for each image of a batch: those that a generator gives its image alone.

    It leaves the generator of the device alone, so that threads can draw at the same time.

    Args:
        generators: one for each image, on the device of the features. `normal` and `dropout` advance them.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        own, dtype, device = (1, *shape[1:]), like.dtype, like.device
        return torch.cat([torch.randn(own, generator=g, dtype=dtype, device=device) for g in self._generators])

    def dropout(self, h: Tensor) -> Tensor:
        images = zip(h.split(1), self._generators, strict=True)
        kept = [torch.empty_like(image).bernoulli_(1 - DROPOUT, generator=generator) for image, generator in images]
        return h * torch.cat(kept).div_(1 - DROPOUT)


class SeededDraws(Draws):
    """Numbers that follow from a seed, the number of the draw, and the place in the tensor.

    They are made by cubing modulo a prime with a key added, over and over, as the cipher MiMC does (Albrecht et al.
    2016, section 2). Each row of pixels gets a key of its own from many such rounds, and each pixel takes two. That
    needs no more than additions, multiplications and remainders of int64, which every runtime has.

    Args:
        seed: [B] int64, one for each image.
    """

    def __init__(self, seed: Tensor) -> None:
        self._seed = seed.long() % PRIME
        self._drawn = 0

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        # The method of Box and Muller, with a uniform number in (0, 1) from the high bits and one from the low bits.
        numbers = self._numbers(shape)
        radius = (-2 * ((numbers.float() + 0.5) / PRIME).log()).sqrt()
        turn = numbers.fmod(_LOW).float() * (2 * math.pi / _LOW)
        return (radius * turn.cos()).to(like.dtype)

    def dropout(self, h: Tensor) -> Tensor:
        kept = self._numbers(h.shape) >= int(DROPOUT * PRIME)
        return h * (kept.to(h.dtype) / (1 - DROPOUT))

    def _numbers(self, shape: Sequence[int]) -> Tensor:
        """Numbers from 0 to PRIME - 1, [B, C, H, W] int64."""
        self._drawn += 1
        _, channels, height, width = shape
        device = self._seed.device
        key = self._seed.view(-1, 1)
        for constant in _KEYS:
            key = _mixed(key, constant + self._drawn)
        rows = torch.arange(channels * height, device=device)
        for _ in range(3):
            rows = _mixed(rows, key)  # [B, C * H]
        keys = rows.view(-1, channels, height, 1)
        return _mixed(_mixed(torch.arange(width, device=device), keys), _KEYS[0])


_source: ContextVar[Draws] = ContextVar("hdgan_draws", default=Draws())  # noqa: B039 (it has no state)


def draws() -> Draws:
    """What networks draw from at this moment."""
    return _source.get()


@contextmanager
def drawing_from(source: Draws) -> Iterator[None]:
    """Make networks inside the block draw from a source."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def _mixed(numbers: Tensor, key: Tensor | int) -> Tensor:
    """A permutation of the numbers below PRIME, which a key below PRIME chooses."""
    # Without negative numbers fmod is the remainder. It is one operation for compilers, which `%` is not.
    moved = (numbers + key).fmod(PRIME)
    return ((moved * moved).fmod(PRIME) * moved).fmod(PRIME)
