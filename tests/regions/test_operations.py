"""Every operation computes of any box what it computes of the whole, and says truly what it reads and writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.errors import ConfigError
from hdgan.models.blocks import conv_by_rows
from hdgan.models.inputs import map_edge_repeated
from hdgan.ops import avg_pyramid, boundary_map, label_conv2d, label_planes, pad2d
from hdgan.regions import Box, Node, RegionRun, RegionStorage, RegionTensor, Source
from hdgan.regions.evaluation import evaluate
from tests.regions.helpers import Held, run_in


def _weight(n_out: int, n_in: int, side: int) -> Tensor:
    return torch.randn(n_out, n_in, side, side, generator=torch.Generator().manual_seed(1))


HEAD = torch.nn.Conv2d(4, 3, 7)
IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "conv 3x3": lambda x: F.conv2d(x, _weight(5, 4, 3), torch.arange(5.0)),
    "conv 3x3 padded": lambda x: F.conv2d(x, _weight(5, 4, 3), padding=1),
    "conv 4x4 stride 2": lambda x: F.conv2d(x, _weight(5, 4, 4), stride=2, padding=1),
    "conv 3x3 stride 2": lambda x: F.conv2d(x, _weight(5, 4, 3), stride=(2, 2), padding=(1, 1)),
    "conv dilated, grouped": lambda x: F.conv2d(x, _weight(4, 2, 3), padding=2, dilation=2, groups=2),
    "conv by rows": lambda x: conv_by_rows(HEAD, x),
    "transposed 3x3": lambda x: F.conv_transpose2d(
        x, _weight(4, 5, 3), torch.arange(5.0), stride=2, padding=1, output_padding=1
    ),
    "transposed 4x4": lambda x: F.conv_transpose2d(x, _weight(4, 5, 4), stride=2, padding=1),
    "transposed 2x2 stride 3": lambda x: F.conv_transpose2d(
        x, _weight(4, 5, 2), torch.ones(5), stride=3, output_padding=2
    ),
    "reflect": lambda x: pad2d(x, 3, "reflect"),
    "zero": lambda x: pad2d(x, 2, "zero"),
    "replicate": lambda x: pad2d(x, 4, "replicate"),
    "right and bottom": lambda x: F.pad(x, (0, 9, 0, 3), mode="replicate"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "nearest to a size": lambda x: F.interpolate(x, size=(43, 61), mode="nearest"),
    "bilinear": lambda x: F.interpolate(x, size=[45, 70], mode="bilinear", align_corners=True),
    "pyramid": lambda x: avg_pyramid(x, 2)[2],
    "pooling": lambda x: F.avg_pool2d(x, 2),
    "pointwise": lambda x: torch.cat([torch.tanh(x) * 2 + x, F.leaky_relu(x, 0.2)], dim=1),
    "one channel on all": lambda x: torch.addcmul(x, torch.arange(4.0).view(-1, 1, 1), x[:, :1]),
    "part": lambda x: x[:, 1:3, 2:17, 1:-4],
    "chain": lambda x: F.conv2d(pad2d(F.conv2d(x, _weight(4, 4, 3), padding=1), 2, "reflect"), _weight(3, 4, 5)),
}
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "codes": lambda m: label_planes(m, m * 7, 6).codes,
    "boundary": lambda m: boundary_map(m),
    "edge repeated": lambda m: map_edge_repeated(m, 6, 1),
    "looked up": lambda m: label_conv2d(label_planes(m, m, 6), None, _weight(5, 7, 7), padding=3, pad_mode="reflect"),
    "looked up, stride 2": lambda m: label_conv2d(label_planes(m, None, 6), None, _weight(5, 6, 4), stride=2, padding=1,
                                                  pad_mode="zero"),
    "looked up, pooled": lambda m: label_conv2d(label_planes(m, m, 6), None, _weight(5, 7, 7), padding=3, levels=2),
    "looked up, pooled by 2": lambda m: label_conv2d(label_planes(m, m, 6), None, _weight(5, 7, 3), padding=1, levels=1,
                                                     window=2, pad_mode="zero"),
}  # fmt: skip
CASES = [*((name, f, False) for name, f in IMAGES.items()), *((name, f, True) for name, f in MAPS.items())]


def _given(is_map: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if is_map:
        return torch.randint(0, 6, (1, 29, 38), generator=generator)
    return torch.randn(1, 4, 23, 30, generator=generator)


def _boxes(node: Node, count: int) -> list[Box]:
    generator = torch.Generator().manual_seed(2)
    height, width = node.shape[-2:]
    boxes = [node.box, Box(0, 1, 0, 1), Box(height - 1, height, width - 1, width)]
    while len(boxes) < count:
        rows = sorted(torch.randint(0, height + 1, (2,), generator=generator).tolist())
        columns = sorted(torch.randint(0, width + 1, (2,), generator=generator).tolist())
        if rows[0] < rows[1] and columns[0] < columns[1]:
            boxes.append(Box(*rows, *columns))
    return boxes


@pytest.mark.parametrize(("name", "function", "is_map"), CASES, ids=[case[0] for case in CASES])
def test_box_has_the_pixels_of_the_whole(name: str, function: Callable[[Tensor], Tensor], is_map: bool) -> None:
    given = _given(is_map)
    with torch.no_grad():
        whole = function(given)
        made = function(RegionTensor.of(Source(Held(given), given.shape, given.dtype), run_in()))
        assert isinstance(made, RegionTensor)
        assert (made.shape, made.dtype) == (whole.shape, whole.dtype)
        for box in _boxes(made.node, 25):
            rows, columns = box.slices(made.node.box)
            torch.testing.assert_close(evaluate(made.node, box), whole[..., rows, columns], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "function", "is_map"), CASES, ids=[case[0] for case in CASES])
def test_nothing_changes_outside_of_what_is_written(
    name: str, function: Callable[[Tensor], Tensor], is_map: bool
) -> None:
    given = _given(is_map)
    source = Source(Held(given), given.shape, given.dtype)
    with torch.no_grad():
        whole, made = function(given), function(RegionTensor.of(source, run_in()))
        assert isinstance(made, RegionTensor)
        for box in _boxes(source, 15):
            rows, columns = box.slices(source.box)
            changed = given.clone()
            changed[..., rows, columns] = (changed[..., rows, columns] + 1) % 6
            different = (function(changed) != whole).flatten(0, -3).any(0)
            written = written_by(made.node, source, box)
            inside_rows, inside_columns = written.slices(made.node.box)
            different[inside_rows, inside_columns] = False
            assert not different.any(), f"{box} changes more than {written}"


def written_by(node: Node, source: Node, box: Box) -> Box:
    """The box of a node that depends on a box of its source, through all nodes between."""
    if node is source:
        return box
    found = Box(0, 0, 0, 0)
    for k, n in enumerate(node.inputs):
        found = found.hull(node.writes(k, written_by(n, source, box)))
    return found


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.fft.fft2(x), "fft_fft2"),
        (lambda x: x + torch.zeros(1, 1, 23, 30), "an image among images"),
        (lambda x: F.conv2d(x, torch.zeros(1, 4, 3, 5)), "3x5"),
        (lambda x: F.conv2d(x, torch.zeros(1, 4, 3, 3), stride=(1, 2)), r"stride \(1, 2\)"),
        (lambda x: F.interpolate(x, scale_factor=0.5), "interpolation"),
        (lambda x: torch.cat([x, x], dim=2), "dimension 2"),
        (lambda x: x[:, :, ::2], "part"),
        (lambda x: F.pad(x, (1, 1), mode="circular"), "circular"),
    ],
)
def test_other_operations_are_refused(function: Callable[[Tensor], Tensor], message: str) -> None:
    given = _given(False)
    with pytest.raises(ConfigError, match=message):
        function(RegionTensor.of(Source(Held(given), given.shape, given.dtype), run_in()))


def test_size_and_dtype_are_known_without_pixels() -> None:
    x = RegionTensor.of(
        Source(Held(_given(False)), (1, 4, 10**6, 10**6), torch.float32), RegionRun(RegionStorage(0, None))
    )
    y = F.conv2d(x, _weight(8, 4, 3), stride=2, padding=1)
    assert (y.shape, y.dtype, y.device) == ((1, 8, 500000, 500000), torch.float32, torch.device("cpu"))
