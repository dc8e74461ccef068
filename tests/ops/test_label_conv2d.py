import importlib
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from hdgan.ops import BackendError, LabelPlanes, avg_pyramid, encode_labels, label_conv2d, label_planes, pad2d
from tests.ops.backends import KERNELS
from tests.ops.checks import FORMATS, assert_compiles, assert_near, dtypes_of, is_interpreted, outputs_and_gradients

label_conv2d_module = importlib.import_module("hdgan.ops.label_conv2d")  # hdgan.ops has the function of that name


def scene(*shape, classes=4, seed=0):
    """A label map of rectangles, as large as they are small, and instance ids; a few labels belong to no class."""
    generator = torch.Generator().manual_seed(seed)
    label, ids = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    batch, height, width = shape
    for image in range(batch):
        for number in range(8):
            y, x = (int(torch.randint(-2, side, (), generator=generator)) for side in (height, width))
            h, w = (int(torch.randint(1, max(2, side // 2), (), generator=generator)) for side in (height, width))
            part = image, slice(max(y, 0), max(y, 0) + h), slice(max(x, 0), max(x, 0) + w)
            label[part] = int(torch.randint(-1, classes + 1, (), generator=generator))
            ids[part] = number
    return label, ids


def noise(*shape, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, classes, shape, generator=generator) for _ in range(2))


def dense(label, ids, weight, *, stride=1, padding=0, pad_mode="reflect", levels=0, window=3, dontcare=None):
    """What the op is defined to compute, by the other ops and PyTorch's convolution."""
    n_labels = weight.shape[1] - (ids is not None)
    x = encode_labels(label, ids, n_labels, dontcare=dontcare, dtype=weight.dtype, backend="eager")
    if window == 3:
        x = avg_pyramid(x, levels, backend="eager")[-1]
    else:
        for _ in range(levels):
            x = F.avg_pool2d(x, 2)
    return F.conv2d(pad2d(x, padding, pad_mode), weight, stride=stride)


def weight_for(n, *, channels=5, side=3):
    return torch.randn(channels, n, side, side, generator=torch.Generator().manual_seed(1))


CASES = {
    "stem": (scene(1, 24, 37), 32, 7, {"padding": 3}),
    "two images": (scene(2, 19, 40), 5, 3, {"padding": 1, "pad_mode": "zero"}),
    "without boundaries": ((scene(2, 15, 21)[0], None), 8, 3, {"padding": 1}),
    "not padded": (scene(1, 13, 17), 3, 5, {}),
    "1x1": (scene(2, 5, 9), 4, 1, {}),
    "even kernel": (scene(1, 18, 33), 16, 4, {"stride": 2, "padding": 2, "pad_mode": "zero"}),
    "stride 3": (scene(1, 20, 23), 2, 3, {"stride": 3, "padding": 2, "pad_mode": "replicate"}),
    "replicated": (scene(1, 17, 50), 17, 7, {"padding": 3, "pad_mode": "replicate"}),
    "padded by more than there is": (scene(1, 3, 2), 3, 7, {"padding": 5, "pad_mode": "replicate"}),
    "zeros all around": (scene(1, 2, 3), 3, 7, {"padding": 5, "pad_mode": "zero"}),
    "one pixel": (scene(1, 1, 1), 3, 3, {"padding": 1, "pad_mode": "zero"}),
    "one row": (scene(1, 1, 70), 3, 1, {}),
    "one class": ((torch.full((1, 20, 70), 2), None), 6, 7, {"padding": 3}),
    "noise": (noise(1, 12, 33), 40, 7, {"padding": 3}),
    "channels that fill no block": (scene(1, 15, 40), 12, 3, {"padding": 1}),
    "dontcare": (scene(1, 16, 20), 3, 3, {"padding": 1, "dontcare": 2}),
    "half": (scene(1, 22, 41), 9, 7, {"padding": 3, "levels": 1}),
    "quarter": (scene(2, 27, 38), 4, 3, {"padding": 1, "levels": 2}),
    "half for D": (scene(1, 29, 40), 16, 4, {"stride": 2, "padding": 2, "pad_mode": "zero", "levels": 1}),
    "eighth": (scene(1, 33, 49), 3, 3, {"padding": 1, "pad_mode": "replicate", "levels": 3}),
    "noise halved": (noise(1, 18, 23), 8, 3, {"padding": 1, "pad_mode": "zero", "levels": 1}),
    "halved in twos": (scene(1, 16, 24), 6, 3, {"padding": 1, "pad_mode": "zero", "levels": 1, "window": 2}),
    "quartered in twos": (scene(1, 23, 34), 6, 3, {"padding": 1, "pad_mode": "zero", "levels": 2, "window": 2}),
}
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(autouse=True)
def always_looked_up(monkeypatch):
    """Otherwise the maps of these tests, which are small and busy, would be convolved in the dense form on a CPU."""
    monkeypatch.setattr(label_conv2d_module, "_dense_is_faster", lambda *_: False)


@every_case
def test_reference_is_the_dense_convolution(case):
    (label, ids), channels, side, options = CASES[case]
    weight = weight_for(4 + (ids is not None), channels=channels, side=side).double()
    found = label_conv2d(label, ids, weight, **options, backend="eager")
    assert_near(found, dense(label, ids, weight, **options))


@every_case
@pytest.mark.parametrize("memory_format", FORMATS)
def test_near_truth(backend, device, case, memory_format):
    (label, ids), channels, side, options = CASES[case]
    exact = weight_for(4 + (ids is not None), channels=channels, side=side)
    label, ids = label.to(device), None if ids is None else ids.to(device)
    for dtype in dtypes_of(backend, list(CASES).index(case) + FORMATS.index(memory_format)):
        weight = exact.to(dtype)
        truth = dense(label.cpu(), None if ids is None else ids.cpu(), weight.double(), **options)
        # Of order 1 whatever the number of pixels, as the table of tolerances expects.
        upstream = [torch.randn(truth.shape).to(dtype) / truth[:, 0].numel() ** 0.5]
        _, (dtruth,) = outputs_and_gradients(
            lambda w: dense(label.cpu(), None if ids is None else ids.cpu(), w, **options),
            [weight.double()],
            upstream,
        )
        weight = weight.to(device, memory_format=memory_format)
        (y,), (dweight,) = outputs_and_gradients(
            lambda w: label_conv2d(label, ids, w, **options, backend=backend), [weight], upstream
        )
        assert y.dtype == dweight.dtype == dtype
        assert y.is_contiguous(memory_format=memory_format) or side == 1
        scale = truth.abs().max().clamp(min=1)
        assert_near(y.cpu().double() / scale, truth / scale, dtype)
        assert_near(dweight, dtruth, dtype)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("busy", [False, True])
def test_a_cpu_multiplies_where_that_is_faster(monkeypatch, memory_format, busy):
    monkeypatch.undo()
    used = []
    monkeypatch.setattr(label_conv2d_module, "launch", lambda stem, kernel, *_: used.append(kernel))
    label, ids = noise(1, 40, 60) if busy else [torch.ones(1, 40, 60, dtype=torch.int64)] * 2
    weight = weight_for(5).to(memory_format=memory_format)
    upstream, options = [torch.randn(1, 5, 20, 30)], {"padding": 1, "levels": 1}
    (y,), (dweight,) = outputs_and_gradients(
        lambda w: label_conv2d(label, ids, w, **options, backend="cpu"), [weight], upstream
    )
    assert used == ([] if busy else ["fwd", "bwd"])
    assert y.is_contiguous(memory_format=memory_format)
    if busy:
        (truth,), (dtruth,) = outputs_and_gradients(
            lambda w: dense(label, ids, w, **options), [weight.double()], upstream
        )
        assert_near(y, truth)
        assert_near(dweight, dtruth, torch.float32)


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_map_shows_does_not_decide_how_exact_a_cpu_is(monkeypatch, dtype, busy):
    monkeypatch.undo()
    label, _ = noise(1, 300, 300)
    if not busy:
        label = label.sort().values
    assert label_conv2d_module._dense_is_faster(label.int(), 4, 0, 3, dtype, False, "cpu") == busy
    weight = weight_for(4).requires_grad_()
    y = label_conv2d(label, None, weight, dtype=dtype, backend="cpu")
    truth = dense(label, None, weight.double())
    torch.testing.assert_close(y.double(), truth, rtol=torch.finfo(dtype).eps / 2, atol=1e-5)
    y.backward(torch.full_like(y, 4))  # a class has more than float16 counts to
    (dtruth,) = torch.autograd.grad(truth, weight, torch.full_like(truth, 4))
    assert torch.equal(weight.grad, dtruth)


def test_kernels_that_see_mixed_pixels_alone(backend, device):
    label, ids = scene(1, 41, 90, classes=1)
    weight = weight_for(2, channels=12)
    options = {"stride": 40, "padding": 1, "pad_mode": "zero", "levels": 2, "dontcare": 0}
    found = label_conv2d(label.to(device), ids.to(device), weight.to(device), **options, backend=backend)
    assert_near(found, dense(label, ids, weight.double(), **options), torch.float32)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_many_classes(backend, device, levels):
    """More than one block of any kernel has, and labels beyond 8 bits; most classes do not occur."""
    label = scene(1, 14, 26)[0] * 321
    weight = weight_for(700, channels=3)
    found = label_conv2d(label.to(device), None, weight.to(device), padding=1, levels=levels, backend=backend)
    assert_near(found, dense(label, None, weight.double(), padding=1, levels=levels), torch.float32)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_more_channels_than_one_direction_of_a_grid_has(backend, device, monkeypatch):
    """As those that torch.vmap folds. The emulated CUDA has as few blocks in a direction for all of its tests."""
    if backend == "triton":
        monkeypatch.setattr("hdgan.kernels.common.MOST_ROWS", 3)
    label, ids = scene(1, 8, 10)
    weight, upstream = weight_for(5, channels=260), torch.randn(1, 260, 8, 10) / 80**0.5
    (truth,), (dtruth,) = outputs_and_gradients(
        lambda w: dense(label, ids, w, padding=1), [weight.double()], [upstream]
    )
    label, ids = label.to(device), ids.to(device)
    (y,), (dweight,) = outputs_and_gradients(
        lambda w: label_conv2d(label, ids, w, padding=1, backend=backend), [weight.to(device)], [upstream.to(device)]
    )
    assert_near(y, truth)
    assert_near(dweight, dtruth)


def test_more_levels_than_there_are_pixels(backend, device):
    """One pixel is left at some level, and stays the same at all further ones."""
    label, ids = scene(1, 9, 14)
    weight = weight_for(5, side=1)
    found = label_conv2d(label.to(device), ids.to(device), weight.to(device), levels=40, backend=backend)
    assert_near(found, dense(label, ids, weight.double(), levels=40), torch.float32)


def test_planes_are_shared(backend, device):
    label, ids = (x.to(device) for x in scene(1, 12, 20))
    planes = label_planes(label, ids, 4, dontcare=1, backend=backend)
    weight = weight_for(5).to(device)
    found = label_conv2d(planes, None, weight, backend=backend)
    assert torch.equal(found, label_conv2d(label, ids, weight, dontcare=1, backend=backend))


def test_boundaries_may_be_given(backend, device):
    label, ids = (x.to(device) for x in scene(2, 9, 11))
    edges = encode_labels(label, ids, 4, backend="eager")[:, 4] > 0
    weight = weight_for(5).to(device)
    found = label_conv2d(label, edges, weight, backend=backend)
    assert torch.equal(found, label_conv2d(label, ids, weight, backend=backend))


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_wide_sums_keep_their_accuracy(backend, device):
    """A class with so many pixels that a running sum in float32 loses the last ones, as PyTorch's convolution does."""
    label = torch.zeros(1, 120, 200, dtype=torch.uint8, device=device)
    weight = torch.zeros(2, 1, 1, 1, device=device, requires_grad=True)
    dy = torch.full((1, 2, 120, 200), 0.1, device=device)
    label_conv2d(label, None, weight, backend=backend).backward(dy)
    expected = dy.double().sum((0, 2, 3))
    torch.testing.assert_close(weight.grad.flatten().double(), expected, rtol=1e-6, atol=0)


def test_narrow_result_of_a_wide_weight(backend, device):
    label, ids = (x.to(device) for x in scene(1, 12, 20))
    weight = weight_for(5).to(device).requires_grad_()
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        exact = label_conv2d(label, ids, weight, dtype=torch.float32, padding=1, backend=backend)
    assert_near(exact, dense(label.cpu(), ids.cpu(), weight.detach().cpu().double(), padding=1))
    for autocast in (False, True):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast):
            dtype = None if autocast else torch.bfloat16
            y = label_conv2d(label, ids, weight, dtype=dtype, padding=1, backend=backend)
        assert y.dtype == torch.bfloat16
        assert_near(y, dense(label.cpu(), ids.cpu(), weight.detach().cpu().double(), padding=1))
        (dweight,) = torch.autograd.grad(y.float().sum(), weight)
        assert dweight.dtype == torch.float32


_PEAK_OF_GRADIENT = """
import torch
from hdgan.ops import label_conv2d

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

label = torch.arange(180).view(15, 12).repeat_interleave(8, 0).repeat_interleave(8, 1).expand(32, -1, -1)
weight = torch.randn(32, 180, 7, 7, requires_grad=True)
y = label_conv2d(label, None, weight, padding=3, backend="cpu")
dy = torch.randn_like(y)
before = peak()
torch.autograd.grad(y, weight, dy)
print((peak() - before) / (label.numel() * 180 * 4 / 1024))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_gradient_of_many_images_takes_less_memory_than_their_planes():
    command = [sys.executable, "-c", _PEAK_OF_GRADIENT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout) < 1


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("levels", [0, 1])
def test_gradient_repeats_to_the_bit(backend, device, levels):
    height, width = (16, 24) if is_interpreted(backend) else (40, 70)  # either way more tiles than shares of them
    label, ids = (x.to(device) for x in scene(2, height, width))
    weight = weight_for(5, channels=16, side=7).to(device).requires_grad_()
    dy = torch.randn(2, 16, height >> levels, width >> levels, device=device)

    def gradient():
        y = label_conv2d(label, ids, weight, padding=3, levels=levels, backend=backend)
        return torch.autograd.grad(y, weight, dy)[0]

    assert torch.equal(gradient(), gradient())


@pytest.mark.parametrize("memory_format", FORMATS)
def test_threads_do_not_change_the_bits(memory_format):
    label, ids = scene(1, 70, 90)
    weight = weight_for(5, channels=16, side=7).to(memory_format=memory_format)
    results, threads = [], torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            dy = [torch.randn(1, 16, 70, 90, generator=torch.Generator().manual_seed(2))]
            run = outputs_and_gradients(lambda w: label_conv2d(label, ids, w, padding=3, backend="cpu"), [weight], dy)
            results.append([*run[0], *run[1]])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_gradient_in_another_memory_format(backend, device):
    label, ids = (x.to(device) for x in scene(1, 12, 20))
    weight = weight_for(5, channels=8).to(device).requires_grad_()
    dy = torch.randn(1, 8, 10, 18, device=device)
    wide = torch.randn(1, 8, 10, 36, device=device)
    grads = []
    for given in (dy, dy.to(memory_format=torch.channels_last), wide[..., ::2].copy_(dy)):
        y = label_conv2d(label, ids, weight, backend=backend)
        grads.append(torch.autograd.grad(y, weight, given)[0])
    torch.testing.assert_close(grads[1], grads[0])
    torch.testing.assert_close(grads[2], grads[0])


def test_reference_gradient():
    label, ids = scene(1, 6, 7)
    weight = weight_for(5, channels=2).double().requires_grad_()
    for levels in (0, 1):
        op = lambda w, levels=levels: label_conv2d(label, ids, w, padding=1, levels=levels)  # noqa: E731
        assert gradcheck(op, weight)
        assert gradgradcheck(lambda w, op=op: op(w).pow(2), weight)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_double_backward(backend, device):
    label, ids = (x.to(device) for x in scene(1, 9, 12))
    results = []
    weight = weight_for(5).to(device).requires_grad_()
    for name in (backend, "eager"):
        y = label_conv2d(label, ids, weight, padding=1, levels=1, backend=name)
        (dweight,) = torch.autograd.grad(y.pow(3).sum(), weight, create_graph=True)
        results.append(torch.autograd.grad(dweight.square().sum(), weight)[0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend, device, dynamic):
    label, ids = (x.to(device) for x in scene(1, 12, 20))
    # The weight is what assert_compiles doubles; taller kernels are of no use, so that its labels are fixed.
    assert_compiles(
        lambda w: label_conv2d(label, ids, w, padding=1, levels=1, backend=backend),
        weight_for(5).to(device),
        dynamic=dynamic,
        grows=False,
    )


def test_exports_in_the_dense_form():
    class Stem(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight_for(5))

        def forward(self, label, ids):
            return label_conv2d(label, ids, self.weight, padding=1, backend="eager")

    label, ids = scene(1, 12, 20)
    program = torch.export.export(Stem(), (label, ids))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in targets
    assert not [target for target in targets if "hdgan" in target]


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(backend, device, channels_last):
    label, ids = (x.to(device) for x in scene(1, 9, 14))
    codes = label_planes(label, ids, 4, backend=backend).codes
    weight = weight_for(5).to(device).requires_grad_()
    options = True, 2, 1, "reflect", 1, 3, torch.float32, channels_last, backend
    torch.library.opcheck(torch.ops.hdgan.label_conv2d, (codes, weight, *options))
    dy = torch.randn(1, 5, 3, 4, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.hdgan.label_conv2d_backward, (codes, dy, weight.shape, *options))
    torch.library.opcheck(torch.ops.hdgan.label_planes, (label, ids, 4, -1, backend))


LABEL = torch.zeros(1, 4, 4, dtype=torch.int64)
WEIGHT = torch.zeros(2, 3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((LABEL.float(), None, WEIGHT), {}, TypeError, "label of an integer dtype, got torch.float32"),
        ((LABEL, LABEL.float(), WEIGHT), {}, TypeError, "ids of an integer dtype"),
        ((LABEL, LABEL[:, :2], WEIGHT), {}, ValueError, r"ids of shape \(1, 4, 4\)"),
        ((LABEL, None, WEIGHT.int()), {}, TypeError, "weight of a floating-point dtype, got torch.int32"),
        ((LABEL, None, WEIGHT[0]), {}, ValueError, r"weight of shape \[C_out, n, k, k\], got \(3, 3, 3\)"),
        ((LABEL, None, WEIGHT[..., :2]), {}, ValueError, r"got \(2, 3, 3, 2\)"),
        ((LABEL, None, WEIGHT.to("meta")), {}, ValueError, "label on cpu, weight on meta"),
        (
            (LabelPlanes(LABEL.int()[:0], 3, False), None, WEIGHT),
            {},
            ValueError,
            r"non-empty codes, got shape \(0, 4",
        ),
        ((LabelPlanes(LABEL.int(), 3, True), None, WEIGHT), {}, ValueError, "weight of 4 input channels, got 3"),
        ((LabelPlanes(LABEL.int(), 3, False), LABEL, WEIGHT), {}, ValueError, "neither ids nor dontcare"),
        ((LABEL, None, WEIGHT), {"dtype": torch.int32}, TypeError, "dtype of the result, got torch.int32"),
        ((LABEL, None, WEIGHT), {"pad_mode": "circular"}, ValueError, "reflect, zero or replicate, got 'circular'"),
        ((LABEL, None, WEIGHT), {"window": 4}, ValueError, "window 2 or 3, got 4"),
        ((LABEL, None, WEIGHT), {"stride": 0}, ValueError, "stride >= 1, got 0"),
        ((LABEL, None, WEIGHT), {"padding": -1}, ValueError, "padding >= 0, got -1"),
        ((LABEL, None, WEIGHT), {"levels": -1}, ValueError, "levels >= 0, got -1"),
        ((LABEL, None, WEIGHT), {"padding": 4}, ValueError, "larger than the padding 4, got 4x4"),
        ((LABEL, None, WEIGHT), {"levels": 1}, ValueError, "at least the kernel's 3 pixels, got 2x2"),
        ((LABEL, None, WEIGHT), {"levels": 3, "window": 2}, ValueError, "8x8 pixels or more for levels 3, got 4x4"),
        ((LabelPlanes(LABEL, 3, False), None, WEIGHT), {}, TypeError, "codes in torch.int32.* got torch.int64"),
        ((LabelPlanes(LABEL[0].int(), 3, False), None, WEIGHT), {}, ValueError, r"shape \[B, H, W\], got \(4, 4\)"),
    ],
)
def test_wrong_input(arguments, options, error, says):
    with pytest.raises(error, match=f"(label_conv2d|label_planes): expected .*{says}"):
        label_conv2d(*arguments, **options)


@pytest.mark.parametrize(("code", "edges", "most"), [(-1, True, 7), (8, True, 7), (4, False, 3), (2**31 - 1, False, 3)])
def test_hand_made_codes_outside_of_the_planes_are_refused_on_a_cpu(code, edges, most):
    codes = torch.zeros(1, 8, 8, dtype=torch.int32)
    codes[0, 5, 3] = code
    weight = torch.zeros(2, 3 + edges, 3, 3)
    with pytest.raises(
        ValueError, match=rf"label_conv2d: expected codes from 0 to {most}, got {code}: label planes must"
    ):
        label_conv2d(LabelPlanes(codes, 3, edges), None, weight, padding=1, backend="cpu")


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        label_conv2d(LABEL, None, WEIGHT, backend="abacus")


@pytest.mark.parametrize("backend", [KERNELS[1]], indirect=True)
def test_cuda_kernels_have_a_largest_side(backend, device):
    label = torch.zeros(1, 70, 70, dtype=torch.uint8, device=device)
    weight = weight_for(1, channels=1, side=60).to(device)
    with pytest.raises(RuntimeError, match="at most 59 pixels a side on CUDA, got 60; use the backend 'eager'"):
        label_conv2d(label, None, weight, backend=backend)


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; `make` makes images."""
    codes = torch.empty(1, 512, 1024, dtype=torch.int32, device="meta")
    pools = [torch.empty(side, 3, device="meta") for side in (256, 512)]
    table, scratch = torch.empty(49, 36, 32, device="meta"), torch.empty(2**23, device="meta")
    for y, pooled in ((make(1, 32, 512, 1024), (None, None)), (make(1, 32, 256, 512), pools)):
        yield "fwd", (codes, table, y, *pooled, scratch, 35, 1, 3, "reflect")
        yield "bwd", (codes, table, y, *pooled, scratch, 35, 1, 3, "reflect")
