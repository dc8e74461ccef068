"""The building blocks of the networks.

A convolution that feeds an instance norm without affine parameters has a dead bias: the norm subtracts it again. The
bias is kept, since NVIDIA's checkpoints carry it, and left out of the computation (`as_function`), which saves the
addition in the forward pass and a reduction over the whole gradient in the backward pass.

A convolution keeps one tensor for its backward pass, its output; a residual block its sum as well. What the next
convolution reads, the normalised and padded activation, is made again from it (`recomputed`). The generators of pix2pix
do not take part in this, since batch norms and dropout cannot be repeated.

Both apply only to unmodified convolutions and to those with the spectral norm of `hdgan.models.spectral_norm`. One
that has hooks (those of PyTorch's older spectral norm, weight norm and pruning among them), that is otherwise
parametrised, or that was replaced by another module is called like any other module, and never repeated: see
`is_plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function
from torch.utils.checkpoint import checkpoint

from hdgan.models.options import UpsampleMode
from hdgan.models.spectral_norm import class_without_norm
from hdgan.ops import backend, instance_norm_act
from hdgan.ops._backend import forced_backend
from hdgan.ops._overrides import is_taken
from hdgan.ops._torch_internals import conv_forward, has_hooks, transforms_active
from hdgan.ops.instance_norm_act import PadMode, pad2d

T = TypeVar("T")
Kind = TypeVar("Kind", bound=type[nn.Module])
INIT_STD = 0.02
"""Standard deviation of new convolution weights, as in the originals."""
_recompute = False
_casts: list[Casts] = []
"""Those of each active `reusing`, in all threads. The last ones count; all give the same numbers."""
_PLAIN: dict[type, Callable[..., Any]] = {
    kind: kind.forward for kind in (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
}
"""Modules that may be repeated, and not called at all if what they compute is known; each with its own forward."""


def plain(kind: Kind) -> Kind:
    """Decorate a module class: running it twice on the same input, as `recomputed` does, has no side effects."""
    _PLAIN[kind] = kind.forward
    return kind


def is_plain(module: nn.Module) -> bool:
    """Whether nobody can tell if a module is called, or how often: it is of a known class, with the forward of that
    class, and without hooks, be they its own or global.

    Parametrised modules and those that FSDP shards are of classes of their own. A convolution with our spectral norm
    counts as plain: its weight is computed where it is read.
    """
    known = _PLAIN.get(class_without_norm(module)) is type(module).forward and "forward" not in module.__dict__
    return known and not has_hooks(module) and not (isinstance(module, nn.Conv2d) and conv_forward(module) is None)


def as_function(conv: nn.Module, *, bias: bool = False, channels: slice | None = None) -> Callable[[Tensor], Tensor]:
    """The function that a convolution computes with its current weights. One that is not plain is returned unchanged.

    Args:
        conv: the convolution, or its replacement.
        bias: add the bias; without it, an instance norm has to follow.
        channels: of the input, for a part of it; only of what is plain.
    """
    if not is_plain(conv):
        assert channels is None
        return conv
    weight: Any = _cast(conv.weight)
    if channels is not None:
        weight = weight[:, channels]
    added: Any = _cast(conv.bias) if bias else None
    if isinstance(conv, nn.ConvTranspose2d):
        options: Any = (conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation)
        return lambda x: F.conv_transpose2d(x, weight, added, *options)
    assert isinstance(conv, nn.Conv2d)
    convolve = conv_forward(conv)
    assert convolve is not None
    return lambda x: convolve(x, weight, added)


class Casts:
    """Frozen weights in the dtype of autocast, which would cast them in every call. It makes the same numbers of them.

    A weight that is changed, or replaced by another one, is cast again. PyTorch counts changes in place, but not those
    that are made through `weight.data`. A copy of this object holds nothing at first.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[ref[Tensor], Tensor, int, Tensor]] = {}

    def __reduce__(self) -> tuple[type[Casts], tuple[()]]:
        return Casts, ()

    def of(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """A weight in the dtype of autocast."""
        held = self._held.get(id(weight))
        if held is not None:
            owner, memory, version, cast = held
            same = owner() is weight and memory.data_ptr() == weight.data_ptr() and version == weight._version
            if same and (cast.dtype, cast.device) == (dtype, weight.device):
                return cast
        cast = weight.detach().to(dtype)
        alive = {key: entry for key, entry in self._held.items() if entry[0]() is not None}
        # The memory is held too, so that no other weight can come to lie where this one was.
        self._held = alive | {id(weight): (ref(weight), weight.detach(), weight._version, cast)}
        return cast


@contextmanager
def reusing(casts: Casts) -> Iterator[None]:
    """Make plain convolutions inside the block take their frozen weights from `casts`."""
    _casts.append(casts)
    try:
        yield
    finally:
        _casts.remove(casts)  # wherever it is: another thread may have added its own since


def _cast(weight: Any) -> Any:
    """A weight or bias as autocast would cast it, where casts are reused; else as it is."""
    active = _casts[-1:]  # by one step, since another thread may remove its own
    if not active or weight is None or weight.requires_grad or weight.dtype != torch.float32:
        return weight
    kind = weight.device.type
    if not torch.is_autocast_enabled(kind) or torch.compiler.is_compiling() or weight.is_inference():
        return weight
    return active[0].of(weight, torch.get_autocast_dtype(kind))


@contextmanager
def recomputing(enabled: bool = True) -> Iterator[None]:
    """Make networks inside the block keep less for their backward pass, which then repeats norms and paddings."""
    global _recompute
    before, _recompute = _recompute, enabled
    try:
        yield
    finally:
        _recompute = before


def recomputed(function: Callable[..., T], *tensors: Tensor, through: Iterable[nn.Module] = ()) -> T:
    """Run function(*tensors). Inside `recomputing`, intermediate results are computed again in the backward pass.

    The last operation is not repeated: what it saves is its inputs.

    Args:
        function: what to run.
        tensors: its arguments.
        through: the modules that it runs. Nothing is repeated if one of them is not plain: its hooks may have a state,
            as those of spectral norm have, and what took its place may draw noise. Their parameters must still be the
            same in the backward pass.
    """
    possible = torch.is_grad_enabled() and not transforms_active()  # which take no checkpoints
    if not (_recompute and possible and all(map(is_plain, through))):
        return function(*tensors)
    forced = forced_backend()
    if forced is not None:
        function = partial(_run_on, forced, function)
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def _run_on(name: str, function: Callable[..., T], *tensors: Tensor) -> T:
    """Use the backend that was forced in the forward pass, even if the backward pass runs outside of its context."""
    with backend(name):
        return function(*tensors)


def prepared_conv(
    conv: nn.Module,
    x: Tensor,
    prepare: Callable[[Tensor], Tensor],
    *,
    bias: bool = False,
    channels: slice | None = None,
    through: Iterable[nn.Module] = (),
) -> Tensor:
    """Convolve prepare(x), which is computed again from x in the backward pass (`recomputed`).

    Args:
        conv, bias, channels: as of `as_function`.
        x: the only tensor that is kept.
        prepare: computes what the convolution reads.
        through: the modules that `prepare` runs.
    """
    convolve = as_function(conv, bias=bias, channels=channels)
    return recomputed(lambda x: convolve(prepare(x)), x, through=(conv, *through))


def norm_relu_conv(conv: nn.Module, x: Tensor, pad: int, pad_mode: PadMode, *, bias: bool = False) -> Tensor:
    """Normalise, activate, pad and convolve x."""
    norm = partial(instance_norm_act, activation="relu", pad=pad, pad_mode=pad_mode)
    return prepared_conv(conv, x, norm, bias=bias)


def runs_by_rows(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether `conv_by_rows` is the faster way to convolve x.

    It is faster for few output channels on a CPU by oneDNN. It is only used in float32, because sums in a narrower
    dtype would be rounded after each row, and without gradients, which would run through every slice. Compiled and
    exported networks stay dense, since they may run elsewhere.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or transforms_active() or not is_plain(conv):
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    simple = (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (0, 0), (1, 1), 1)
    return simple and conv.kernel_size[0] > 1 and conv.out_channels <= 4


def conv_by_rows(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve x [B, C_in, H, W] as one convolution with the rows of the kernel, whose shifted results are added.

    oneDNN computes output channels in blocks of 16, of which three leave most idle. The rows of a 7x7 kernel are 21
    channels of a 1x7 convolution, which takes less than half of the time.
    """
    if is_taken((x,)):
        return handle_torch_function(conv_by_rows, (x,), conv, x)
    rows = conv.kernel_size[0]
    height = x.shape[2] - rows + 1
    weight = conv.weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)
    by_row = F.conv2d(x, weight).unflatten(1, (rows, conv.out_channels))
    y = by_row[:, 0, :, :height]
    y = y.clone() if conv.bias is None else y + conv.bias[:, None, None]
    for row in range(1, rows):
        y += by_row[:, row, :, row : row + height]
    return y


def init_weights(module: nn.Module) -> None:
    """Draw all convolution weights from N(0, 0.02²), and scales of batch norms from N(1, 0.02²), as the originals do.

    Biases stay as PyTorch draws them, as in NVIDIA/pix2pixHD.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, INIT_STD)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, INIT_STD)


def zero_biases(module: nn.Module) -> None:
    """Set all biases to 0, as both pix2pix implementations do."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)


def down_conv(channels: int) -> nn.Conv2d:
    """A 3x3 convolution that halves the resolution and doubles the channels."""
    return nn.Conv2d(channels, channels * 2, 3, stride=2, padding=1)


def up_conv(channels: int, mode: UpsampleMode) -> nn.ConvTranspose2d | nn.Conv2d:
    """A 3x3 convolution of what is `enlarged`, which halves the channels."""
    if mode == "transposed":
        return nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)
    if mode == "resize":
        return nn.Conv2d(channels, channels // 2, 3)
    raise ValueError(f"up_conv: expected mode transposed or resize, got {mode!r}")


def enlarged(x: Tensor, mode: UpsampleMode, pad_mode: PadMode) -> Tensor:
    """What an `up_conv` reads: x itself, or by "resize", which leaves no checkerboard, its nearest-neighbour doubling.

    The doubling is not part of the convolution, so that a replacement of it need not know about the doubling.
    """
    return x if mode == "transposed" else pad2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), 1, pad_mode)


def norm_relu_up(conv: nn.Module, x: Tensor, mode: UpsampleMode, pad_mode: PadMode) -> Tensor:
    """Normalise and activate x, and apply an `up_conv`."""
    return prepared_conv(conv, x, lambda x: enlarged(instance_norm_act(x, activation="relu"), mode, pad_mode))


class ResidualBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, add (paper appendix; He et al. 2016).

    Works on padded tensors, so that each norm writes straight into the padded input of the next convolution.
    """

    PAD = 1

    def __init__(self, channels: int, pad_mode: PadMode) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.conv2 = nn.Conv2d(channels, channels, 3)
        self.pad_mode = pad_mode

    def forward(self, padded: Tensor, pad: int) -> Tensor:
        """Map [B, C, H + 2, W + 2] to [B, C, H + 2 pad, W + 2 pad]."""
        y = as_function(self.conv1)(padded)
        y = norm_relu_conv(self.conv2, y, self.PAD, self.pad_mode)
        return instance_norm_act(y, residual=padded, pad=pad, pad_mode=self.pad_mode)


def residual_chain(blocks: Sequence[nn.Module] | nn.ModuleList, padded: Tensor) -> Tensor:
    """Run residual blocks one after the other: padded by 1 if there are any, [B, C, H, W] out."""
    for i, block in enumerate(blocks):
        padded = block(padded, pad=ResidualBlock.PAD if i + 1 < len(blocks) else 0)
    return padded
