"""Tensors of classes that compute ops by themselves.

PyTorch's protocol for that is `__torch_function__`. Modes and other subclasses listen to it as well, and they expect
operators and not our functions. So only classes that ask for it are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch

Class = TypeVar("Class", bound=type)
_classes: tuple[type, ...] = ()


def takes_ops(cls: Class) -> Class:
    """Decorate a class of tensors whose `__torch_function__` is to get the ops themselves."""
    global _classes
    _classes = (*_classes, cls)
    return cls


def is_taken(tensors: Iterable[object]) -> bool:
    """Whether a tensor among these is of such a class, so that `handle_torch_function` has to be called."""
    return not torch.compiler.is_compiling() and any(isinstance(tensor, _classes) for tensor in tensors)
