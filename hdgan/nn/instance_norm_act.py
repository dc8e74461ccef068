"""InstanceNormAct2d and InstanceNormAct3d: instance norm and what follows it, as one module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar, get_args

import torch
from torch import Tensor, nn

from hdgan.nn._sharing import require_plain
from hdgan.ops import instance_norm_act
from hdgan.ops.instance_norm_act import Activation, PadMode

Self = TypeVar("Self", bound="_InstanceNormAct")


def keeps_statistics(norm: nn.Module) -> bool:
    """Whether an instance norm of PyTorch has running statistics, by which it normalises in evaluation."""
    return bool(norm.track_running_stats) or norm.running_mean is not None or norm.running_var is not None


def normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, **options: Any
) -> Tensor:
    """instance_norm_act of images or volumes, which are planes [B, C, D·H, W] to it: views in both memory formats.

    Args:
        x: [B, C, H, W] or [B, C, D, H, W].
        weight, bias: [C], or None.
        residual: of the shape of x, or None. That of an image may be padded.
        options: of the op. A volume is not padded.
    """
    if x.dim() == 4:
        return instance_norm_act(x, weight, bias, residual, **options)
    rows = None if residual is None else residual.flatten(2, 3)
    return instance_norm_act(x.flatten(2, 3), weight, bias, rows, **options).unflatten(2, x.shape[2:4])


class _InstanceNormAct(nn.Module, ABC):
    """What the two have in common.

    It is no subclass of nn.InstanceNorm2d: code that replaces all norms of a network by others would lose the
    activation.
    """

    RANK: ClassVar[int]
    """Dimensions of a batch."""
    SIZES: ClassVar[str]
    """The last of them, which statistics are taken over."""
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        affine: bool,
        bias: bool,
        activation: Activation,
        negative_slope: float,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(affine, bool):
            raise TypeError(f"{name}: expected affine True or False, got {affine!r}; there is no momentum before it")
        if activation not in get_args(Activation):
            raise ValueError(f"{name}: expected activation none, relu or leaky_relu, got {activation!r}")
        if not isinstance(negative_slope, int | float) or not negative_slope >= 0:
            raise ValueError(f"{name}: expected negative_slope to be a number >= 0, got {negative_slope!r}")
        self.num_features, self.eps, self.affine = num_features, eps, affine
        self.activation: Activation = activation
        self.negative_slope = negative_slope
        for parameter, given in (("weight", affine), ("bias", affine and bias)):
            made = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if given else None
            self.register_parameter(parameter, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one and the shift to zero."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _take_from(self: Self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> Self:
        """Share the parameters of a norm, and its mode."""
        self.affine = norm.affine
        self.weight, self.bias = norm.weight, norm.bias
        return self.train(norm.training)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalise and activate x, and add the residual."""
        name = type(self).__name__
        if x.dim() == self.RANK - 1:
            return self.forward(x.unsqueeze(0), None if residual is None else residual.unsqueeze(0)).squeeze(0)
        if x.dim() != self.RANK:
            shapes = f"[B, C, {self.SIZES}] or [C, {self.SIZES}]"
            raise ValueError(f"{name}: expected x of shape {shapes}, got {tuple(x.shape)}")
        if self.affine and x.shape[1] != self.num_features:
            raise ValueError(f"{name}: expected x of {self.num_features} channels, got shape {tuple(x.shape)}")
        if all(size == 1 for size in x.shape[2:]):
            raise ValueError(f"{name}: expected planes of more than one pixel, got x of shape {tuple(x.shape)}")
        return self._of_batch(x, residual)

    @abstractmethod
    def _of_batch(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Call the op for a batch whose shape suits."""

    def _normalise(self, x: Tensor, residual: Tensor | None, **padding: Any) -> Tensor:
        """Call the op."""
        options = {"activation": self.activation, "negative_slope": self.negative_slope, "eps": self.eps, **padding}
        return normalised(x, self.weight, self.bias, residual, **options)

    def extra_repr(self) -> str:
        """The options that have an effect."""
        shown = f"{self.num_features}, eps={self.eps}, affine={self.affine}"
        if self.affine and self.bias is None:
            shown += ", bias=False"
        if self.activation != "none":
            shown += f", activation={self.activation}"
        if self.activation == "leaky_relu":
            shown += f", negative_slope={self.negative_slope}"
        return shown


class InstanceNormAct2d(_InstanceNormAct):
    """nn.InstanceNorm2d, then an activation, the addition of a residual, and padding for the next convolution.

    It computes what

        nn.Sequential(nn.InstanceNorm2d(num_features, eps, affine=affine), nn.ReLU(), nn.ReflectionPad2d(pad))

    does, by one op in each direction, and keeps only its input and two numbers a plane for the backward pass. There are
    no running statistics, so it does the same in training and in evaluation. The state dict is that of the norm:
    `weight` and `bias` [num_features] with `affine`, and nothing without.

    x may be of any floating-point dtype, which need not be that of the parameters. The result has the dtype and the
    memory format of x. This holds under `torch.autocast` too, which has no rule for nn.InstanceNorm2d either. (On a CPU
    it has one for nn.ReflectionPad2d and nn.ReplicationPad2d, which then return float32.) Sums are taken in float32, or
    in float64 for float64.

    The residual is added after the activation, and nothing but padding follows. It is converted to the dtype of x. It
    may be padded itself: then its interior is added (see `hdgan.ops.instance_norm_act`).

    Args:
        num_features: channels of x. Without `affine`, x may have any number.
        eps: added to the variance.
        affine: whether there are a scale and a shift for each channel.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: of leaky_relu, at least 0; the default is that of nn.LeakyReLU.
        pad: pixels added on each side.
        pad_mode: "reflect" (pad < H and pad < W), "zero" or "replicate".
        bias: whether there is a shift, if there is a scale.
        device, dtype: of the parameters.

    Shape:
        x: [B, C, H, W] or [C, H, W], of more than one pixel a plane.
        residual: that of x, or padded equally on all sides.
        Result: [B, C, H + 2 pad, W + 2 pad] or [C, H + 2 pad, W + 2 pad].

    Raises:
        TypeError, ValueError: an option, or x or the residual when called, is not of these; the message says what was
            expected and given. Planes of one pixel, which would always become zero, are refused in evaluation as well,
            as nn.InstanceNorm2d does without running statistics. An empty batch is refused, too.
    """

    RANK, SIZES = 4, "H, W"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        *,
        activation: Activation = "none",
        negative_slope: float = 0.01,
        pad: int = 0,
        pad_mode: PadMode = "reflect",
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, bias, activation, negative_slope, device, dtype)
        if not isinstance(pad, int) or pad < 0:
            raise ValueError(f"InstanceNormAct2d: expected pad to be a number of pixels >= 0, got {pad!r}")
        if pad_mode not in get_args(PadMode):
            raise ValueError(f"InstanceNormAct2d: expected pad_mode reflect, zero or replicate, got {pad_mode!r}")
        self.pad = pad
        self.pad_mode: PadMode = pad_mode

    @classmethod
    def of(
        cls,
        norm: nn.InstanceNorm2d,
        activation: Activation = "none",
        *,
        negative_slope: float = 0.01,
        pad: int = 0,
        pad_mode: PadMode = "reflect",
    ) -> InstanceNormAct2d:
        """The module that takes the place of a norm and of what follows it. It shares the norm's parameters.

        Args:
            norm: an nn.InstanceNorm2d without running statistics and without hooks.
            activation, negative_slope, pad, pad_mode: as of the class.

        Raises:
            ValueError: the result would not be exact. The norm is of another class (subclasses included), is not
                initialised yet, has a forward of its own, hooks, or running statistics; or an option is unknown.
        """
        _require_same(f"{cls.__name__}.of", norm, nn.InstanceNorm2d)
        made = cls(
            norm.num_features,
            norm.eps,
            activation=activation,
            negative_slope=negative_slope,
            pad=pad,
            pad_mode=pad_mode,
        )
        return made._take_from(norm)

    def _of_batch(self, x: Tensor, residual: Tensor | None) -> Tensor:
        return self._normalise(x, residual, pad=self.pad, pad_mode=self.pad_mode)

    def extra_repr(self) -> str:
        """The options that have an effect."""
        padding = f", pad={self.pad}, pad_mode={self.pad_mode}" if self.pad else ""
        return super().extra_repr() + padding


class InstanceNormAct3d(_InstanceNormAct):
    """nn.InstanceNorm3d, then an activation and the addition of a residual.

    It computes what

        nn.Sequential(nn.InstanceNorm3d(num_features, eps, affine=affine), nn.LeakyReLU())

    does, which follows each convolution of nnU-Net, and keeps only its input for the backward pass. The kernels
    read contiguous volumes and those in channels_last_3d where they lie, as planes [B, C, D·H, W], and give the result
    and the gradient the same memory format. (nn.InstanceNorm3d copies a channels_last_3d volume into a contiguous one
    and returns that.) A volume with gaps is copied first. There is no padding: nn.Conv3d pads with zeros by itself.

    State dict and dtypes are as of `InstanceNormAct2d`, and so is the place of the residual, after the activation. The
    last norm of a residual block of nnU-Net, whose activation follows the sum, is one with activation "none".

    Args:
        num_features, eps, affine, activation, negative_slope, bias, device, dtype: as of `InstanceNormAct2d`.

    Shape:
        x: [B, C, D, H, W] or [C, D, H, W], of more than one voxel a channel.
        residual: that of x.
        Result: that of x.

    Raises:
        TypeError, ValueError: as of `InstanceNormAct2d`.
    """

    RANK, SIZES = 5, "D, H, W"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        *,
        activation: Activation = "none",
        negative_slope: float = 0.01,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, bias, activation, negative_slope, device, dtype)

    @classmethod
    def of(
        cls, norm: nn.InstanceNorm3d, activation: Activation = "none", *, negative_slope: float = 0.01
    ) -> InstanceNormAct3d:
        """The module that takes the place of a norm and of its activation. It shares the norm's parameters.

        Args:
            norm: an nn.InstanceNorm3d without running statistics and without hooks.
            activation, negative_slope: as of the class.

        Raises:
            ValueError: the result would not be exact, as of `InstanceNormAct2d.of`.
        """
        _require_same(f"{cls.__name__}.of", norm, nn.InstanceNorm3d)
        return cls(norm.num_features, norm.eps, activation=activation, negative_slope=negative_slope)._take_from(norm)

    def _of_batch(self, x: Tensor, residual: Tensor | None) -> Tensor:
        if residual is not None and residual.shape != x.shape:
            shapes = f"expected residual of shape {tuple(x.shape)}, got {tuple(residual.shape)}"
            raise ValueError(f"InstanceNormAct3d: {shapes}")
        return self._normalise(x, residual)


def _require_same(caller: str, norm: nn.InstanceNorm2d | nn.InstanceNorm3d, kind: type[nn.Module]) -> None:
    """Check that a norm is what the fused op computes, in training and in evaluation.

    Raises:
        ValueError: it is not.
    """
    require_plain(caller, norm, kind)
    if keeps_statistics(norm):
        raise ValueError(
            f"{caller}: this {kind.__name__} has running statistics, by which it normalises in evaluation; make it "
            "with track_running_stats=False"
        )
