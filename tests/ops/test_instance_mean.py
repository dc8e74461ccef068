import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from hdgan.ops import BackendError, _backend, instance_broadcast, instance_index, instance_mean, instance_reduce
from tests.ops.backends import KERNELS, TRITON
from tests.ops.cases import MAPS, brute_force_mean
from tests.ops.checks import FORMATS, assert_compiles, assert_near, dtypes_of, outputs_and_gradients

TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def image_for(ids, channels=3, dtype=torch.float32):
    return torch.randn(ids.shape[0], channels, *ids.shape[1:]).to(ids.device, dtype)


@pytest.mark.parametrize("name", MAPS)
def test_equals_brute_force(backend, device, name):
    ids = MAPS[name].to(device)
    x = image_for(ids)
    y = instance_mean(x, ids, backend=backend).cpu().double()
    torch.testing.assert_close(y, brute_force_mean(x.cpu(), ids.cpu()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtypes(dtype):
    ids = MAPS["odd"]
    x = image_for(ids, dtype=dtype)
    y = instance_mean(x, ids)
    assert y.dtype == dtype
    expected = brute_force_mean(x, ids)
    assert ((y.double() - expected).abs() <= TOLERANCE[dtype] * (1 + expected.abs())).all()


def test_sums_do_not_lose_small_values_in_half_precision(backend, device):
    x = torch.full((1, 1, 128, 128), 0.1, dtype=torch.float16, device=device)  # 16384 x 0.1 in float16 would stall
    y = instance_mean(x, torch.zeros(1, 128, 128, dtype=torch.int64, device=device), backend=backend)
    assert torch.equal(y, x)


@pytest.mark.parametrize("name", ["odd", "one-pixel", "one-instance", "all-different", "same-ids-in-both-images"])
def test_gradient(name):
    ids = MAPS[name]
    x = image_for(ids, 2, torch.float64).requires_grad_()
    assert gradcheck(lambda x: instance_mean(x, ids), x)
    assert gradgradcheck(lambda x: instance_mean(x, ids), x)


def rectangles(batch, height, width, n):
    """Instances in several parts and long runs. [B, H, W]"""
    ids = torch.zeros(batch, height, width, dtype=torch.int32)
    for k in range(1, n):
        top, left = (int(torch.randint(size, ())) for size in (height, width))
        ids[k % batch, top : top + height // 3, left : left + width // 4] = k
    return ids


# Maps whose instances come by the vector, the warp, the block; with even and odd rows.
LARGER = {
    "one": lambda: torch.zeros(1, 40, 256, dtype=torch.int32),
    "three": lambda: (torch.arange(8 * 1000) // 2700).view(1, 8, 1000),
    "rectangles": lambda: rectangles(2, 6, 128, 12),
    "rectangles-odd": lambda: rectangles(1, 23, 131, 12),
    "noise": lambda: torch.randint(0, 50, (1, 16, 64)),
    "noise-odd": lambda: torch.randint(0, 9, (2, 17, 33)),
}
MANY = {
    "many": lambda: torch.arange(600).repeat_interleave(3).view(1, 18, 100),
    "all-different": lambda: torch.arange(2 * 1000).view(2, 25, 40),
}
"""More instances than fit a table in shared memory."""


def truths(x, ids, upstream):
    """Of all that can be computed from x [B, C, H, W] and `upstream` like it, in float64 by the reference."""
    index = instance_index(ids, backend="eager")
    x, upstream = x.double(), upstream.double()
    table = instance_reduce(upstream, index, backend="eager")
    return index, {
        "mean": instance_mean(x, index, backend="eager"),
        "dmean": instance_mean(upstream, index, backend="eager"),
        "reduce": instance_reduce(x, index, backend="eager"),
        "dreduce": instance_broadcast(table / index.counts[:, None], index, backend="eager"),
        "broadcast": instance_broadcast(table, index, backend="eager"),
        "dbroadcast": table * index.counts[:, None],
        "table": table,
    }


@pytest.mark.parametrize("name", LARGER)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_near_truth(backend, device, name, memory_format):
    ids = LARGER[name]()
    for dtype in dtypes_of(backend, list(LARGER).index(name) + FORMATS.index(memory_format)):
        x, upstream = (image_for(ids, 3, dtype).to(memory_format=memory_format) for _ in range(2))
        index, truth = truths(x, ids, upstream)
        assert_near_truth(backend, device, dtype, memory_format, x, upstream, index, truth)


def assert_near_truth(backend, device, dtype, memory_format, x, upstream, index, truth):
    index = type(index)(*(part.to(device) for part in index))
    x, upstream = x.to(device), upstream.to(device)
    (y,), (dx,) = outputs_and_gradients(lambda x: instance_mean(x, index, backend=backend), [x], [upstream])
    assert_near(y, truth["mean"])
    assert_near(dx, truth["dmean"], dtype)
    for result in (y, dx):
        assert result.dtype == dtype
        assert result.is_contiguous(memory_format=memory_format)
    table = truth["table"].float().to(device)
    (y,), (dx,) = outputs_and_gradients(lambda x: instance_reduce(x, index, backend=backend), [x], [table])
    assert y.dtype == torch.float32
    assert_near(y, truth["reduce"])
    assert_near(dx, truth["dreduce"], dtype)
    assert dx.is_contiguous(memory_format=memory_format)
    table = truth["table"].to(device, dtype)
    (y,), (dtable,) = outputs_and_gradients(
        lambda t: instance_broadcast(t, index, backend=backend), [table], [upstream]
    )
    assert y.dtype == dtype
    assert y.is_contiguous()
    assert_near(y, truth["broadcast"])
    assert_near(dtable, truth["dbroadcast"], dtype)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 70])
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_any_number_of_channels(backend, device, channels):
    ids = torch.arange(12).repeat_interleave(40).view(2, 8, 30)
    for memory_format in FORMATS:
        x, upstream = (image_for(ids, channels).to(memory_format=memory_format) for _ in range(2))
        index, truth = truths(x, ids, upstream)
        # one channel of several pixels is contiguous in either format
        assert_near_truth(backend, device, torch.float32, memory_format, x, upstream, index, truth)


@pytest.mark.parametrize("name", ["rectangles", "rectangles-odd", "noise-odd", *MANY])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_without_deterministic_algorithms(backend, device, name, memory_format):
    ids = (LARGER | MANY)[name]()
    x, upstream = (image_for(ids).to(memory_format=memory_format) for _ in range(2))
    index, truth = truths(x, ids, upstream)
    torch.use_deterministic_algorithms(False)
    assert_near_truth(backend, device, torch.float32, memory_format, x, upstream, index, truth)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_threads_and_chunks(backend, memory_format):
    ids = rectangles(2, 301, 277, 40)
    x = image_for(ids).to(memory_format=memory_format)
    alone = instance_mean(x, ids, backend=backend)
    assert_near(alone, instance_mean(x.double(), ids, backend="eager"))
    torch.set_num_threads(3)
    try:
        assert torch.equal(instance_mean(x, ids, backend=backend), alone)
    finally:
        torch.set_num_threads(1)


def double_gradients(ids, x, backend):
    """Of each op, the gradient of a function of its gradient."""
    index = instance_index(ids, backend=backend)
    functions = (
        lambda x: instance_mean(x, index, backend=backend),
        lambda x: instance_reduce(x, index, backend=backend),
        lambda x: instance_broadcast(x.flatten()[: 2 * len(index.ids)].view(-1, 2), index, backend=backend),
    )
    firsts = [torch.autograd.grad(function(x).pow(3).sum(), x, create_graph=True)[0] for function in functions]
    return [torch.autograd.grad(dx.square().sum(), x)[0] for dx in firsts]


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_double_backward(backend, device):
    ids = MAPS["odd"].to(device)
    x = image_for(ids).requires_grad_()
    for found, expected in zip(double_gradients(ids, x, backend), double_gradients(ids, x, "eager"), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradient_is_the_op_itself(backend, device):
    ids = MAPS["odd"].to(device)
    x = image_for(ids).requires_grad_()
    gradient = torch.randn_like(x)
    instance_mean(x, ids, backend=backend).backward(gradient)
    torch.testing.assert_close(x.grad, instance_mean(gradient, ids, backend=backend))


def test_idempotent_and_exact_where_every_pixel_is_its_own_instance(backend, device):
    ids = MAPS["odd"].to(device)
    once = instance_mean(image_for(ids), ids, backend=backend)
    torch.testing.assert_close(instance_mean(once, ids, backend=backend), once)
    ids = MAPS["all-different"].to(device)
    x = image_for(ids)
    assert torch.equal(instance_mean(x, ids, backend=backend), x)


def test_memory_format_is_kept(backend, device):
    ids = MAPS["odd"].to(device)
    x = image_for(ids)
    y = instance_mean(x.to(memory_format=torch.channels_last), ids, backend=backend)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert instance_mean(x, ids, backend=backend).is_contiguous()
    torch.testing.assert_close(y, instance_mean(x, ids, backend=backend))


def test_strided_image(backend, device):
    ids = MAPS["odd"].to(device)
    wide = torch.randn(2, 3, 14, 15, device=device)
    x = wide[:, :, ::2, ::3]
    assert torch.equal(instance_mean(x, ids, backend=backend), instance_mean(x.contiguous(), ids, backend=backend))


def test_index_is_reused(backend, device):
    ids = MAPS["negative"].to(device)
    x = image_for(ids)
    assert torch.equal(instance_mean(x, instance_index(ids), backend=backend), instance_mean(x, ids, backend=backend))
    assert torch.equal(instance_mean(x, ids.unsqueeze(1), backend=backend), instance_mean(x, ids, backend=backend))


@pytest.mark.parametrize("name", MAPS)
def test_reduce_and_broadcast_are_its_halves(backend, device, name):
    ids = MAPS[name].to(device)
    x = image_for(ids)
    index = instance_index(ids, backend=backend)
    table = instance_reduce(x, index, backend=backend)
    assert table.shape == (index.ids.numel(), 3)
    assert torch.equal(instance_broadcast(table, index, backend=backend), instance_mean(x, ids, backend=backend))


def test_reduce_returns_one_row_per_instance(backend, device):
    x = torch.tensor([[[[1.0, 3.0, 10.0]]], [[[5.0, 7.0, 9.0]]]], device=device)
    index = instance_index(torch.tensor([[[4, 4, -1]], [[4, 4, 4]]], device=device), backend=backend)
    assert instance_reduce(x, index, backend=backend).tolist() == [[10.0], [2.0], [7.0]]
    assert instance_reduce(x.bfloat16(), index, backend=backend).dtype == torch.float32
    assert instance_reduce(x.double(), index).dtype == torch.float64


def test_gradients_of_the_halves():
    ids = MAPS["odd"]
    index = instance_index(ids)
    x = image_for(ids, 2, torch.float64).requires_grad_()
    table = torch.randn(index.ids.numel(), 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: instance_reduce(x, index), x)
    assert gradcheck(lambda table: instance_broadcast(table, index), table)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend, device, dynamic):
    ids = MAPS["odd"].to(device)
    index = instance_index(ids, backend=backend)
    assert_compiles(lambda x: instance_mean(x, index, backend=backend), image_for(ids), dynamic=dynamic, grows=False)
    assert_compiles(
        lambda x: instance_broadcast(instance_reduce(x, index, backend=backend), index, backend=backend),
        image_for(ids),
        dynamic=dynamic,
        grows=False,
    )


def test_exports(backend, device):
    class Mean(torch.nn.Module):
        def forward(self, x, index):
            return instance_mean(x, index, backend=backend)

    ids = MAPS["odd"].to(device)
    x, index = image_for(ids), instance_index(ids, backend=backend)
    exported = torch.export.export(Mean(), (x, index), strict=True)
    torch.testing.assert_close(exported.module()(x, index), instance_mean(x, index, backend=backend))


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_opcheck(backend, device):
    index = instance_index(MAPS["odd"].to(device), backend=backend)
    parts = (index.rows, index.offsets, index.counts)
    x = image_for(index.rows).to(memory_format=torch.channels_last).requires_grad_()
    table = torch.randn(index.ids.numel(), 3, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.hdgan.instance_mean, (x, *parts, backend))
    torch.library.opcheck(torch.ops.hdgan.instance_reduce, (x, *parts, True, torch.float32, backend))
    torch.library.opcheck(torch.ops.hdgan.instance_broadcast, (table, *parts, False, torch.float32, True, backend))


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_float64_is_for_eager(backend, device):
    ids = torch.zeros(1, 2, 2, dtype=torch.int64, device=device)
    x = torch.ones(1, 3, 2, 2, dtype=torch.float64, device=device)
    index = instance_index(ids, backend=backend)
    for function, argument in (
        (instance_mean, x),
        (instance_reduce, x),
        (instance_broadcast, torch.ones(1, 3, dtype=torch.float64, device=device)),
    ):
        assert function(argument, index).dtype == torch.float64
        with pytest.raises(BackendError, match=r"got torch\.float64"):
            function(argument, index, backend=backend)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"], indirect=True)
def test_more_than_2_to_the_31_elements(backend):
    ids = torch.arange(8, device="cuda").repeat_interleave(2**13).repeat(2**13 + 1).view(1, 2**13 + 1, 2**16)
    x = ids[:, None].to(torch.bfloat16).expand(1, 4, -1, -1).contiguous()
    for memory_format in FORMATS:
        y = instance_mean(x.to(memory_format=memory_format), ids, backend=backend)
        assert torch.equal(y[:, :, -1], x[:, :, -1])
        assert torch.equal(y, x)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"], indirect=True)
def test_works_on_the_current_stream(backend):
    ids = rectangles(1, 512, 512, 20).cuda()
    index = instance_index(ids, backend=backend)
    expected = instance_mean(torch.full((1, 3, 512, 512), 2.0, device="cuda"), index, backend=backend)
    x = torch.zeros(1, 3, 512, 512, device="cuda")
    results = []
    for stream in (torch.cuda.Stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)
            results.append(instance_mean(x + 2.0, index, backend=backend))
    torch.cuda.synchronize()
    for found in results:
        torch.testing.assert_close(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"], indirect=True)
def test_cuda_graph(backend):
    torch.use_deterministic_algorithms(False)
    ids = rectangles(1, 64, 128, 20).cuda()
    index = instance_index(ids, backend=backend)
    x = image_for(ids)
    instance_mean(x, index, backend=backend)  # triton compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = instance_mean(x, index, backend=backend)
    x.copy_(torch.randn_like(x))
    graph.replay()
    torch.testing.assert_close(y, instance_mean(x, index, backend="eager"))


IDS = torch.zeros(1, 2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("x", "ids", "error", "says"),
    [
        (torch.zeros(1, 3, 2, 2, dtype=torch.int64), IDS, TypeError, "floating-point dtype, got torch.int64"),
        (torch.zeros(3, 2, 2), IDS, ValueError, r"\[B, C, H, W\], got \(3, 2, 2\)"),
        (torch.zeros(1, 0, 2, 2), IDS, ValueError, "non-empty x"),
        (torch.zeros(1, 3, 2, 3), IDS, ValueError, r"shape \(1, 2, 3\) to match x, got \(1, 2, 2\)"),
        (torch.zeros(2, 3, 2, 2), IDS, ValueError, r"\(2, 2, 2\)"),
        (torch.zeros(1, 3, 2, 2), IDS.float(), TypeError, "ids of an integer dtype"),
        (torch.zeros(1, 3, 2, 2), IDS[:, :0], ValueError, "non-empty ids"),
        (torch.zeros(1, 3, 2, 2, device="meta"), IDS, ValueError, "the same device, got x on meta, ids on cpu"),
    ],
)
def test_wrong_input(x, ids, error, says):
    with pytest.raises(error, match=says):
        instance_mean(x, ids)


def test_last_pack_of_a_tile(backend, device):
    x = torch.randn(1, 3, 1, 3, device=device).to(memory_format=torch.channels_last)
    assert torch.equal(instance_mean(x, torch.tensor([[[0, 1, 2]]], device=device), backend=backend), x)


def test_wrong_table():
    index = instance_index(IDS)
    with pytest.raises(ValueError, match=r"values of shape \[1, C\].*got \(2, 3\)"):
        instance_broadcast(torch.zeros(2, 3), index)
    with pytest.raises(ValueError, match=r"values of shape \[1, C\].*got \(1, 0\)"):
        instance_broadcast(torch.zeros(1, 0), index)
    with pytest.raises(TypeError, match=r"floating-point dtype, got torch\.int64"):
        instance_broadcast(torch.zeros(1, 3, dtype=torch.int64), index)
    with pytest.raises(ValueError, match="the same device, got values on meta"):
        instance_broadcast(torch.zeros(1, 3, device="meta"), index)


@pytest.mark.parametrize("run", [instance_mean, instance_reduce, instance_broadcast])
@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        ({"rows": "int64"}, TypeError, "int32, int64 and int64, got"),
        ({"counts": "int32"}, TypeError, "int32, int64 and int64, got"),
        ({"offsets": "int32"}, TypeError, "int32, int64 and int64, got"),
        ({"offsets": slice(1, None)}, ValueError, r"offsets of shape \(3,\), got \(2,\)"),
    ],
)
def test_index_of_parts(run, broken, error, says):
    index = instance_index(torch.tensor([[[1, 2]], [[3, 3]]]))
    for name, change in broken.items():
        part = getattr(index, name)
        part = part[change] if isinstance(change, slice) else part.to(getattr(torch, change))
        index = index._replace(**{name: part})
    with pytest.raises(error, match=says):
        run(torch.zeros(3, 4) if run is instance_broadcast else torch.zeros(2, 3, 1, 2), index)


def test_rows_of_other_images_are_refused():
    index = instance_index(torch.tensor([[[1, 2]], [[3, 3]]]))
    for run in (instance_mean, instance_reduce):
        with pytest.raises(ValueError, match="an index must stay whole"):
            run(torch.zeros(2, 3, 1, 2), index._replace(rows=index.rows.flip(0)), backend="cpu")


HAND_MADE = {
    "an image without instances": {"offsets": [0, 0, 4]},
    "no instances": {"offsets": [0, 0, 0], "counts": []},
    "fewer counts than rows": {"counts": [1, 1]},
    "fewer counts than images": {"counts": [1]},
    "more counts than rows": {"counts": [1, 1, 1, 1, 1]},
    "rows that begin later": {"offsets": [1, 2, 4]},
    "rows that begin before the first": {"offsets": [-2, 2, 4]},
    "offsets that fall": {"offsets": [0, 9, 4]},
    "offsets beyond the table": {"offsets": [0, 2, 1 << 40]},
}
"""Parts that do not belong to an index of two images of two instances each."""


def hand_made(parts, device="cpu"):
    index = instance_index(torch.tensor([[[1, 2]], [[3, 4]]], device=device))
    return index._replace(
        **{name: torch.tensor(part, dtype=torch.int64, device=device) for name, part in parts.items()}
    )


@pytest.mark.parametrize("name", HAND_MADE)
@pytest.mark.parametrize("run", [instance_mean, instance_reduce])
def test_parts_that_do_not_belong_together_are_refused(run, name):
    with pytest.raises(ValueError, match="an index must stay whole"):
        run(torch.zeros(2, 3, 1, 2), hand_made(HAND_MADE[name]), backend="cpu")


def test_a_map_of_many_instances_with_few_counts_is_refused():
    """Their sums would be written far beyond the table."""
    index = instance_index(torch.arange(512 * 512).view(1, 512, 512))
    with pytest.raises(ValueError, match="an index must stay whole"):
        instance_mean(torch.zeros(1, 3, 512, 512), index._replace(ids=index.ids[:1], counts=index.counts[:1]))


@pytest.mark.parametrize("row", [-1, 4, 1 << 30])
def test_rows_outside_of_the_table_are_refused(row):
    index = instance_index(torch.tensor([[[1, 2]], [[3, 4]]]))
    index.rows[1, 0, 1] = row
    for memory_format in FORMATS:
        table = torch.zeros(4, 3)
        y = torch.empty(2, 3, 1, 2).to(memory_format=memory_format)
        with pytest.raises(ValueError, match="an index must stay whole"):
            _backend.launch("instance_mean", "broadcast", "cpu", y.device, table, index.rows, None, y)
    with pytest.raises(ValueError, match="an index must stay whole"):
        instance_broadcast(table, index, backend="cpu")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"rows": torch.zeros(0, 1, 2, dtype=torch.int32)}, r"non-empty rows of shape \[B, H, W\], got \(0, 1, 2\)"),
        ({"rows": torch.zeros(2, 0, 2, dtype=torch.int32)}, r"non-empty rows of shape \[B, H, W\], got \(2, 0, 2\)"),
        ({"rows": torch.zeros(2, 2, dtype=torch.int32)}, r"non-empty rows of shape \[B, H, W\], got \(2, 2\)"),
        ({"counts": torch.ones(4, 1, dtype=torch.int64)}, r"counts of shape \[N\], got \(4, 1\)"),
    ],
)
def test_parts_of_other_shapes_are_refused(backend, device, parts, says):
    index = hand_made({}, device)._replace(**{name: part.to(device) for name, part in parts.items()})
    with pytest.raises(ValueError, match=says):
        instance_broadcast(torch.zeros(4, 3, device=device), index, backend=backend)


GPU_KERNELS = KERNELS[1:]


@pytest.mark.parametrize("name", HAND_MADE)
@pytest.mark.parametrize("backend", GPU_KERNELS, indirect=True)
def test_hand_made_indices_write_nowhere_else(backend, device, name):
    """GPU kernels cannot raise without a wait for them, so they leave out what has no place."""
    index = hand_made(HAND_MADE[name], device)
    index.rows[0, 0, 0], index.rows[1, 0, 1] = -7, 1 << 20
    for memory_format in FORMATS:
        x = torch.ones(2, 3, 1, 2, device=device).to(memory_format=memory_format)
        n = len(index.counts)
        if n < 2:
            for deterministic in (False, True):
                torch.use_deterministic_algorithms(deterministic)
                with pytest.raises(ValueError, match=f"instances in each of 2 images, got {n} in all"):
                    instance_reduce(x, index, backend=backend)
            continue
        around = torch.zeros(3 * n, 3, device=device)
        sums = around[n : 2 * n]
        _backend.launch("instance_mean", "reduce", backend, x.device, x, index.rows, index.offsets, sums)
        assert not around[:n].any()
        assert not around[2 * n :].any()
        assert sums.isfinite().all()


@pytest.mark.parametrize("starts", [[0, 9, 1 << 40], [-(1 << 40), 2, 4], [7, 3, 1], [4, 4, 4]])
@pytest.mark.parametrize("backend", GPU_KERNELS, indirect=True)
def test_hand_made_counts_read_nowhere_else(backend, device, starts):
    starts = torch.tensor(starts, device=device)
    order, partial = torch.arange(4, device=device), torch.empty(1, 2, 3, device=device)
    for memory_format in FORMATS:
        x = torch.ones(2, 3, 1, 2, device=device).to(memory_format=memory_format)
        _backend.launch("instance_mean", "reduce_sorted", backend, x.device, x, order, starts, partial)
        assert partial.isfinite().all()
        assert partial.abs().max() <= 4


@pytest.mark.parametrize("backend", [TRITON], indirect=True)
@pytest.mark.parametrize("deterministic", [False, True])
def test_more_channels_than_one_direction_of_a_grid_has(backend, device, deterministic, monkeypatch):
    """As those that torch.vmap folds; the emulated CUDA has as few blocks in a direction for all of its tests."""
    monkeypatch.setattr("hdgan.kernels.common.MOST_ROWS", 3)
    torch.use_deterministic_algorithms(deterministic)
    ids = MAPS["odd"].to(device)
    x = image_for(ids, 70)
    y = instance_mean(x, ids, backend=backend)
    torch.testing.assert_close(y, instance_mean(x, ids, backend="eager"))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"], indirect=True)
@pytest.mark.parametrize("deterministic", [False, True])
def test_jacobian_of_many_pixels(backend, deterministic):
    """torch.vmap folds 16384 gradients of 16 channels."""
    torch.use_deterministic_algorithms(deterministic)
    ids = rectangles(1, 32, 32, 5).cuda()
    index, x = instance_index(ids), torch.randn(1, 16, 32, 32, device="cuda")
    found = torch.autograd.functional.jacobian(
        lambda x: instance_mean(x, index, backend=backend), x, vectorize=True
    ).view(16 * 1024, 16, 1024)
    channel, rows = torch.arange(16, device="cuda"), index.rows.flatten().long()
    same = (rows[:, None] == rows) / index.counts[rows]
    for c in channel:
        torch.testing.assert_close(found.view(16, 1024, 16, 1024)[c, :, c], same)
    assert int(found.count_nonzero()) == 16 * int(same.count_nonzero())


@pytest.mark.parametrize("run", [instance_mean, instance_reduce])
def test_unknown_backend(run):
    with pytest.raises(BackendError, match="abacus"):
        run(torch.zeros(1, 3, 2, 2), instance_index(IDS), backend="abacus")


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; `make` makes images."""

    def numbers(*shape, dtype=torch.int64):
        return torch.empty(shape, dtype=dtype, device="meta")

    x, table, rows = (
        make(1, 3, 512, 1024),
        numbers(50, 3, dtype=torch.float32),
        numbers(1, 512, 1024, dtype=torch.int32),
    )
    yield "reduce", (x, rows, numbers(2), table)
    yield "reduce_sorted", (x, numbers(512 * 1024), numbers(51), numbers(4, 50, 3, dtype=torch.float32))
    yield "broadcast", (table, rows, numbers(50), x)
