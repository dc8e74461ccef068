"""LabelConv2d: the convolution of a label map's one-hot planes, without making them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hdgan.nn import _paddings
from hdgan.nn._sharing import require_plain
from hdgan.ops import LabelPlanes, label_conv2d, label_planes
from hdgan.ops._torch_internals import transforms_active
from hdgan.ops.instance_norm_act import PadMode

PaddingMode = Literal["zeros", "reflect", "replicate"]


class LabelConvOptions(NamedTuple):
    """Options of label_conv2d."""

    stride: int
    padding: int
    pad_mode: PadMode


def options_of(conv: nn.Conv2d, padding: int = 0, pad_mode: PadMode = "zero") -> LabelConvOptions | str:
    """The options with which label_conv2d computes a convolution; or why it does not.

    Args:
        conv: an nn.Conv2d whose input is nothing but one-hot planes.
        padding, pad_mode: what is added to each side in front of it.

    Returns:
        The options, or what was expected and found, as the end of an error message.
    """
    if conv.groups != 1 or conv.dilation != (1, 1):
        found = f"groups {conv.groups} and dilation {conv.dilation}"
        return f"expected a convolution of one group and without dilation, got {found}"
    for name in ("kernel_size", "stride", "padding"):
        value = getattr(conv, name)
        if isinstance(value, str) or len(set(value)) != 1:
            return f"expected {name} to be a number >= 0, the same for both sides, got {value!r}"
    stride, own = conv.stride[0], int(conv.padding[0])
    if padding and own:  # the second may reflect the first
        found = f"padding {conv.padding} behind padding {padding}"
        return f"expected a convolution without padding of its own, got {found}"
    if not own:
        return LabelConvOptions(stride, padding, pad_mode)
    if conv.padding_mode not in _paddings.OF_CONVOLUTIONS:
        return f"expected padding_mode zeros, reflect or replicate, got {conv.padding_mode!r}"
    return LabelConvOptions(stride, own, _paddings.OF_CONVOLUTIONS[conv.padding_mode])


def convolved(
    label: Tensor | LabelPlanes, ids: Tensor | None, weight: Tensor, bias: Tensor | None, options: LabelConvOptions
) -> Tensor:
    """label_conv2d, and the bias added to its result."""
    y = label_conv2d(label, ids, weight, stride=options.stride, padding=options.padding, pad_mode=options.pad_mode)
    if bias is None:
        return y
    bias = bias.to(y.dtype).view(-1, 1, 1)
    return y + bias if transforms_active() else y.add_(bias)  # torch.vmap may map over the bias alone


class LabelConv2d(nn.Conv2d):
    """nn.Conv2d of the one-hot planes of a label map, which are looked up instead of made.

    It computes what

        planes = F.one_hot(label, n_labels).permute(0, 3, 1, 2).float()
        nn.Conv2d(n_labels, out_channels, kernel_size, stride, padding)(planes)

    does, and is that convolution in everything but its input: its parameters, their initial values and its state dict
    are the same. With `boundaries` there is one plane more, of the pixels whose instance id differs from one of their
    four neighbours (paper section 3.3).

    Only the parameters have a gradient. The result has the dtype of the weight, or that of `torch.autocast`, and the
    memory format of the weight. In 16 bits, the bias is added to the rounded result. A label map of many small regions
    costs more than one of large regions.

    Args:
        n_labels: number of classes. A label outside of 0 … n_labels - 1 is of no class and sets no plane. (F.one_hot
            refuses it, for which it has to wait for a GPU.)
        out_channels: channels of the result.
        kernel_size, stride, padding: of the convolution, the same for both sides: a number, or twice the same.
        boundaries: whether the last plane is that of instance boundaries.
        bias: whether a bias is added.
        padding_mode: "zeros", "reflect" or "replicate".
        dontcare: label that is of no class, or None.
        device, dtype: of the parameters.

    Shape:
        label: [B, H, W] or [B, 1, H, W] of any integer dtype; or `hdgan.ops.label_planes`, which several modules may
            share.
        ids: with `boundaries`, instance ids of the shape of label, in any integer dtype, or a bool map that is the
            plane of boundaries itself.
        Result: [B, out_channels, ⌊(H + 2 padding - kernel_size) / stride⌋ + 1, …].

    Raises:
        TypeError, ValueError: an option, or a map when called, is not of these; the message says what was expected and
            given.
    """

    def __init__(
        self,
        n_labels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        *,
        boundaries: bool = False,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        dontcare: int | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if padding_mode not in _paddings.OF_CONVOLUTIONS:
            raise ValueError(f"LabelConv2d: expected padding_mode zeros, reflect or replicate, got {padding_mode!r}")
        if n_labels < 1:
            raise ValueError(f"LabelConv2d: expected n_labels >= 1, got {n_labels}")
        super().__init__(
            n_labels + int(boundaries),
            out_channels,
            _number("kernel_size", kernel_size),
            _number("stride", stride),
            _number("padding", padding),
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )
        self.n_labels, self.boundaries, self.dontcare = n_labels, boundaries, dontcare

    @classmethod
    def of(
        cls,
        conv: nn.Conv2d,
        *,
        boundaries: bool = False,
        padding: int = 0,
        padding_mode: PaddingMode = "reflect",
        dontcare: int | None = None,
    ) -> LabelConv2d:
        """The module that takes the place of a convolution of one-hot planes. It shares the convolution's parameters.

        Args:
            conv: an nn.Conv2d without hooks, whose input is nothing but the planes.
            boundaries, dontcare: as of the class.
            padding, padding_mode: what a padding module in front of `conv`, such as nn.ReflectionPad2d, adds to each
                side; `conv` must not pad by itself then.

        Raises:
            ValueError: the result would not be exact. The convolution is of another class (subclasses included), is not
                initialised yet, has a forward of its own or hooks; or it is grouped, dilated, not square, padded twice
                or in another way than the class offers.
        """
        caller = f"{cls.__name__}.of"
        require_plain(caller, conv, nn.Conv2d)
        if padding_mode not in _paddings.OF_CONVOLUTIONS:
            raise ValueError(f"{caller}: expected padding_mode zeros, reflect or replicate, got {padding_mode!r}")
        options = options_of(conv, padding, _paddings.OF_CONVOLUTIONS[padding_mode])
        if isinstance(options, str):
            raise ValueError(f"{caller}: {options}")
        mode: Any = padding_mode if padding else conv.padding_mode
        made = cls(
            conv.in_channels - int(boundaries), conv.out_channels, conv.kernel_size, options.stride, options.padding,
            boundaries=boundaries, bias=False, padding_mode=mode, dontcare=dontcare, device="meta",
        )  # fmt: skip
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)

    def forward(self, label: Tensor | LabelPlanes, ids: Tensor | None = None) -> Tensor:
        """The convolution of the planes of a label map, and with `boundaries` of that of instance ids."""
        if not isinstance(label, LabelPlanes):
            label, ids = label_planes(label, ids, self.n_labels, dontcare=self.dontcare), None
        if label.edges != self.boundaries:
            expected, found = ("ids", "none") if self.boundaries else ("no ids", "some")
            raise ValueError(f"LabelConv2d: expected {expected} with boundaries={self.boundaries}, got {found}")
        mode = _paddings.OF_CONVOLUTIONS[self.padding_mode]
        options = LabelConvOptions(self.stride[0], int(self.padding[0]), mode)
        return convolved(label, ids, self.weight, self.bias, options)  # the op refuses ids beside planes

    def extra_repr(self) -> str:
        """Those of nn.Conv2d, and the options of its own."""
        shown = f"{super().extra_repr()}, boundaries={self.boundaries}"
        return shown if self.dontcare is None else f"{shown}, dontcare={self.dontcare}"


def _number(name: str, value: int | tuple[int, ...] | str) -> int:
    """An option of both sides as the one number that the op takes.

    Raises:
        ValueError: the sides differ, or it is "same" or "valid".
    """
    if isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"LabelConv2d: expected {name} to be a number >= 0, the same for both sides, got {value!r}")
    return value
