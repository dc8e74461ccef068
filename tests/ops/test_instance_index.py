import pytest
import torch

from hdgan.ops import BackendError, InstanceIndex, instance_index, instance_mean
from hdgan.ops.instance_index import TABLE_SIZE
from tests.ops.backends import KERNELS
from tests.ops.cases import BIG, MAPS


@pytest.mark.parametrize("name", MAPS)
def test_rows_recover_the_ids(backend, device, name):
    ids = MAPS[name].to(device)
    index = instance_index(ids, backend=backend)
    assert index.rows.shape == ids.shape
    assert index.rows.dtype == torch.int32
    assert index.ids.dtype == ids.dtype
    assert index.ids.cpu()[index.rows.cpu().long()].tolist() == ids.tolist()  # CUDA's index knows no uint16


@pytest.mark.parametrize("name", MAPS)
def test_table_is_ordered_by_image_then_id(backend, device, name):
    ids = MAPS[name].to(device)
    index = instance_index(ids, backend=backend)
    expected, counts, offsets = [], [], [0]
    for image in ids.tolist():
        pixels = [value for row in image for value in row]
        expected += sorted(set(pixels))
        counts += [pixels.count(value) for value in sorted(set(pixels))]
        offsets.append(len(expected))
    assert index.ids.tolist() == expected
    assert index.counts.tolist() == counts
    assert index.offsets.tolist() == offsets
    assert (index.offsets.dtype, index.counts.dtype) == (torch.int64, torch.int64)


def test_same_id_in_two_images_is_two_instances(backend, device):
    index = instance_index(torch.tensor([[[5, 5]], [[5, 9]]], device=device), backend=backend)
    assert index.rows.tolist() == [[[0, 0]], [[1, 2]]]
    assert index.ids.tolist() == [5, 5, 9]


def test_ids_of_31_bits_and_more_stay_exact(backend, device):
    ids = torch.tensor([[[BIG, BIG + 1, -BIG], [2**62, 2**62 + 1, 2**31 - 1]]], device=device)
    index = instance_index(ids, backend=backend)
    assert index.ids.tolist() == sorted(ids.flatten().tolist())
    assert index.counts.tolist() == [1] * 6


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_extreme_ids(backend, device, dtype):
    limits = torch.iinfo(dtype)
    ids = torch.tensor([[[limits.min, limits.max, limits.min + 1, limits.max - 1, 0, -1]]], dtype=dtype, device=device)
    index = instance_index(ids, backend=backend)
    assert index.ids.tolist() == sorted(ids.flatten().tolist())
    assert torch.equal(index.ids[index.rows.long()], ids)


def test_accepts_a_channel_axis(backend, device):
    ids = MAPS["odd"].to(device)
    assert_same(instance_index(ids.unsqueeze(1), backend=backend), instance_index(ids, backend=backend))


def blobs(height, width, n=12, dtype=torch.int32):
    """Rectangles on one another, as in a street scene: long runs, and instances in several parts. [1, H, W]"""
    ids = torch.full((1, height, width), 7, dtype=dtype)
    for k in range(n):
        top, left = (int(torch.randint(size, ())) for size in (height, width))
        ids[0, top : top + height // 3, left : left + width // 4] = 24000 + 37 * k
    return ids


INT = torch.iinfo(torch.int64)
LARGER = {
    "blobs": lambda: blobs(40, 131),
    "blobs-in-whole-vectors": lambda: blobs(48, 128),
    "noise": lambda: torch.randint(0, 3000, (2, 37, 71)),
    "few-labels": lambda: torch.randint(0, 3, (1, 64, 80), dtype=torch.uint8),
    "two-stripes": lambda: (torch.arange(6000) // 3000).view(1, 60, 100) - 1,
    "sparse": lambda: torch.randint(INT.min, INT.max, (300,))[torch.randint(300, (2, 33, 65))],
    "sparse-many": lambda: torch.randint(INT.min, INT.max, (1, 190, 200)),
    "same-slot": lambda: torch.randint(0, 8, (1, 9, 50)) * 1024,
    "ends-of-the-table": lambda: torch.tensor([[[0, 65535, 65536 - TABLE_SIZE, -1, 65535, 0, -1, 0]]]),
    "int8": lambda: torch.randint(-128, 128, (1, 20, 30)).to(torch.int8),
    "uint32": lambda: (torch.randint(0, 4, (2, 5, 6)) * (2**30)).to(torch.uint32),
    "uint64": lambda: torch.randint(0, 9000, (2, 5, 6)).to(torch.uint64),
    "tall": lambda: torch.randint(0, 5, (1, 5000, 1)),
}


def assert_same(found, expected):
    for name, a, b in zip(InstanceIndex._fields, found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", LARGER)
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_equals_reference(backend, device, name):
    ids = LARGER[name]()
    assert_same(instance_index(ids.to(device), backend=backend), instance_index(ids, backend="eager"))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("backend", ["eager", "cpu"], indirect=True)
def test_many_pixels_of_unsigned_ids(backend, dtype):
    ids = torch.randint(0, 9, (1, 200, 200)) + 33000  # more than PyTorch sorts in one piece
    if dtype != torch.uint16:
        ids[:, 0] = 2**32 - 1
    found = instance_index(ids.to(dtype), backend=backend)
    assert found.ids.dtype == dtype
    assert_same(found._replace(ids=found.ids.to(torch.int64)), instance_index(ids, backend="eager"))


def test_the_largest_ids_come_last():
    ids = torch.tensor([[[2**64 - 1, 5, 2**63, 5]]], dtype=torch.uint64)
    index = instance_index(ids, backend="eager")
    assert index.ids.tolist() == [5, 2**63, 2**64 - 1]
    assert index.rows.tolist() == [[[2, 0, 1, 0]]]


@pytest.mark.parametrize("name", ["blobs", "noise", "sparse", "sparse-many"])
@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_threads_change_nothing(backend, name):
    ids = LARGER[name]()
    alone = instance_index(ids, backend=backend)
    torch.set_num_threads(3)
    try:
        assert_same(instance_index(ids, backend=backend), alone)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
@pytest.mark.parametrize("low", [0, -2, 2**62])
def test_chunks_of_large_images_meet(backend, low):
    ids = (torch.arange(100_000) // 700 % 90 * 3 + low).view(1, 250, 400)
    ids[0, 0, 0] = 5 if low == 2**62 else low  # what lies far apart is hashed
    assert_same(instance_index(ids, backend=backend), instance_index(ids, backend="eager"))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_compiles(backend, device, dynamic):
    ids = MAPS["odd"].to(device)
    x = torch.randn(2, 3, 7, 5, device=device)

    def function(x, ids):
        index = instance_index(ids, backend=backend)
        return instance_mean(x, index, backend=backend), index.counts, index.rows

    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for found, expected in zip(compiled(x, ids), function(x, ids), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["odd", "beyond-32-bits", "uint8"])
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_opcheck(backend, device, name):
    torch.library.opcheck(torch.ops.hdgan.instance_index, (MAPS[name].to(device), backend))


@pytest.mark.parametrize(
    ("ids", "error", "says"),
    [
        (torch.zeros(1, 2, 2), TypeError, "integer dtype, got torch.float32"),
        (torch.zeros(1, 2, 2, dtype=torch.bool), TypeError, "got torch.bool"),
        (torch.zeros(1, 2, 2, dtype=torch.complex64), TypeError, "got torch.complex64"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, r"\[B, H, W\].*got \(2, 2\)"),
        (torch.zeros(1, 2, 2, 2, dtype=torch.int64), ValueError, r"got \(1, 2, 2, 2\)"),
        (torch.zeros(1, 0, 2, dtype=torch.int64), ValueError, "non-empty"),
        (torch.zeros(0, 2, 2, dtype=torch.int64), ValueError, "non-empty"),
    ],
)
def test_wrong_input(ids, error, says):
    with pytest.raises(error, match=f"instance_index: expected .*{says}"):
        instance_index(ids)


def test_unknown_backend():
    with pytest.raises(BackendError, match="got 'abacus'"):
        instance_index(MAPS["odd"], backend="abacus")


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; there are no images."""
    for dtype in (torch.int32, torch.int64):
        ids, rows, lists, counts, table, ranks, sizes, offsets = (
            torch.empty(shape, dtype=kind, device="meta")
            for shape, kind in (
                ((1, 512, 1024), dtype),
                ((1, 512, 1024), torch.int32),
                (32768, dtype),
                (32768, torch.int64),
                ((1, 32768), torch.int32),
                ((1, 32768), torch.int32),
                (2, torch.int32),
                (2, torch.int64),
            )
        )
        yield "fwd", (ids, rows, offsets, lists, counts, table, ranks, sizes, 0)
