from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hdgan.ops import BackendError, boundary_map, encode_labels, label_planes
from tests.ops.backends import KERNELS
from tests.ops.cases import BIG, MAPS
from tests.ops.checks import DTYPES, FORMATS, dtypes_of

INTEGERS = [
    torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64
]  # fmt: skip


def brute_force_boundary(ids):
    values = ids.tolist()
    result = torch.zeros(ids.shape, dtype=torch.bool)
    for b, image in enumerate(values):
        for i, row in enumerate(image):
            for j, value in enumerate(row):
                near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                result[b, i, j] = any(
                    0 <= k < len(image) and 0 <= m < len(row) and image[k][m] != value for k, m in near
                )
    return result


def brute_force_planes(label, n_labels, dontcare=None):
    planes = torch.zeros(label.shape[0], n_labels, *label.shape[1:])
    for b, image in enumerate(label.tolist()):
        for i, row in enumerate(image):
            for j, value in enumerate(row):
                if 0 <= value < n_labels and value != dontcare:
                    planes[b, value, i, j] = 1
    return planes


@pytest.mark.parametrize("name", MAPS)
def test_boundary_equals_brute_force(name):
    assert torch.equal(boundary_map(MAPS[name]), brute_force_boundary(MAPS[name]))


def test_boundary_tells_ids_apart_that_agree_in_their_low_bits():
    ids = torch.tensor([[[7, 7 + 2**32, 7 + 2**24, BIG]]])
    assert boundary_map(ids).all()


@pytest.mark.parametrize("name", MAPS)
def test_planes_equal_brute_force(backend, device, name):
    label = MAPS[name]
    on_device = label.to(device)
    for dontcare in (None, 1):
        for memory_format in FORMATS:
            result = encode_labels(
                on_device, on_device, 3, dontcare=dontcare, memory_format=memory_format, backend=backend
            ).cpu()
            assert torch.equal(result[:, :3], brute_force_planes(label, 3, dontcare))
            assert torch.equal(result[:, 3], brute_force_boundary(label).float())


@pytest.mark.parametrize("name", MAPS)
def test_codes_stand_for_the_planes(backend, device, name):
    label = MAPS[name].to(device)
    for n_labels, dontcare in ((3, None), (3, 1), (1, None), (300, 299)):
        for ids in (None, label):
            planes = label_planes(label, ids, n_labels, dontcare=dontcare, backend=backend)
            expected = encode_labels(label, ids, n_labels, dontcare=dontcare, backend="eager")
            assert planes.codes.dtype == torch.int32
            assert planes.channels == expected.shape[1]
            for memory_format in FORMATS:
                found = planes.dense(memory_format=memory_format)
                assert torch.equal(found, expected)
                assert found.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_codes_of_all_dtypes(backend, device, dtype):
    label = torch.tensor([[[0, 1, 2, 3, 7, 2, 2, 1]]]).to(device, dtype)
    found = label_planes(label, label, 3, backend=backend).codes
    assert found.tolist() == [[[4, 5, 6, 7, 7, 6, 6, 5]]]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_label_dtypes(backend, device, dtype):
    label = torch.tensor([[[0, 1], [2, 100]]]).to(dtype)
    result = encode_labels(label.to(device), None, 101, backend=backend)
    assert torch.equal(result.cpu(), brute_force_planes(label, 101))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_id_dtypes(backend, device, dtype):
    ids = torch.tensor([[[0, 1, 1, 1], [2, 1, 1, 1]]]).to(dtype)
    label = torch.zeros(1, 2, 4, dtype=torch.uint8)
    result = encode_labels(label.to(device), ids.to(device), 1, backend=backend)
    assert result[0, 1].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_uint8_label_beyond_its_classes(backend, device):
    label = torch.tensor([[[0, 255]]], dtype=torch.uint8, device=device)
    for memory_format in FORMATS:
        result = encode_labels(label, None, 300, memory_format=memory_format, backend=backend)
        assert result.argmax(1).tolist() == [[[0, 255]]]


def test_labels_outside_the_classes_set_no_plane(backend, device):
    label = torch.tensor([[[0, -1], [3, 255]]], device=device)
    expected = encode_labels(label, None, 3, backend=backend)
    assert expected.sum((0, 2, 3)).tolist() == [1, 0, 0]
    for dontcare in (255, -1, -(2**40)):
        assert torch.equal(encode_labels(label, None, 3, dontcare=dontcare, backend=backend), expected)


def test_high_bits_of_a_label_count(backend, device):
    signed = torch.tensor([[[1, 1 + 2**32, 1 - 2**63, -(2**32)]]], device=device)
    for label in (signed, signed.view(torch.uint64)):
        assert encode_labels(label, None, 2, backend=backend).sum(1).tolist() == [[[1, 0, 0, 0]]]


def test_high_bits_of_an_id_count(backend, device):
    ids = torch.tensor([[[7, 7 + 2**32, 7 + 2**24, BIG, BIG]]], device=device)
    for values in (ids, ids.view(torch.uint64)):
        result = encode_labels(torch.zeros_like(ids), values, 1, backend=backend)
        assert result[0, 1].tolist() == [[1, 1, 1, 1, 0]]


@pytest.mark.parametrize("shape", [(2, 3, 1031), (2, 61, 40), (1, 2100, 1), (3, 16, 8)])
@pytest.mark.parametrize("n_labels", [1, 35])
def test_strips_of_all_lengths(backend, device, shape, n_labels):
    label = torch.randint(-2, n_labels + 2, shape)
    ids = torch.randint(0, 3, shape, dtype=torch.int32)
    for dtype in dtypes_of(backend, sum(shape) + n_labels):
        for memory_format in FORMATS:
            options = {"dontcare": 3, "dtype": dtype, "memory_format": memory_format}
            expected = encode_labels(label, ids, n_labels, **options, backend="eager")
            found = encode_labels(label.to(device), ids.to(device), n_labels, **options, backend=backend)
            assert torch.equal(found.cpu(), expected)


def test_more_classes_than_a_strip_has_room_for(backend, device):
    label = torch.tensor([[[0, 4999], [700, 5000]]], device=device)
    for memory_format in FORMATS:
        result = encode_labels(label, label, 5000, memory_format=memory_format, backend=backend)
        assert result.nonzero()[:, 1].tolist() == [0, 700, 4999, *[5000] * 4]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_memory_format(backend, device, dtype):
    label = MAPS["odd"].to(device)
    plain = encode_labels(label, label, 4, dtype=dtype, backend=backend)
    formatted = encode_labels(label, label, 4, dtype=dtype, memory_format=torch.channels_last, backend=backend)
    assert plain.dtype == formatted.dtype == dtype
    assert plain.is_contiguous()
    assert formatted.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, formatted)
    assert set(plain.unique().tolist()) <= {0.0, 1.0}


def test_float64_is_for_eager():
    label = MAPS["odd"]
    result = encode_labels(label, label, 4, dtype=torch.float64)
    assert result.dtype == torch.float64
    assert torch.equal(result.float(), encode_labels(label, label, 4))
    with pytest.raises(BackendError, match=r"float32, bfloat16 or float16, got torch\.float64"):
        encode_labels(label, label, 4, dtype=torch.float64, backend="cpu")


def test_channel_axis(backend, device):
    label = MAPS["odd"].to(device)
    expected = encode_labels(label, label, 4, backend=backend)
    assert torch.equal(encode_labels(label[:, None], label[:, None], 4, backend=backend), expected)


def test_two_threads_write_what_one_does():
    label = torch.randint(0, 9, (2, 61, 140))
    expected = [encode_labels(label, label, 9, memory_format=format, backend="cpu") for format in FORMATS]
    torch.set_num_threads(2)
    try:
        for format, single in zip(FORMATS, expected, strict=True):
            assert torch.equal(encode_labels(label, label, 9, memory_format=format, backend="cpu"), single)
    finally:
        torch.set_num_threads(1)


def test_python_threads_do_not_disturb_each_other():
    labels = [torch.full((1, 64, 64), k) for k in range(8)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda label: encode_labels(label, None, 8, backend="cpu"), labels))
    assert [result.argmax(1).unique().tolist() for result in results] == [[k] for k in range(8)]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend, device, dynamic):
    torch._dynamo.reset()

    def run(label, ids):
        formatted = encode_labels(label, ids, 4, dontcare=1, memory_format=torch.channels_last, backend=backend)
        return formatted, encode_labels(label, None, 4, dtype=torch.bfloat16, backend=backend)

    compiled = torch.compile(run, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for name in ("odd", "transposed"):
        label = MAPS[name].to(device)
        for found, expected in zip(compiled(label, label), run(label, label), strict=True):
            assert torch.equal(found, expected)
            assert found.stride() == expected.stride()


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(backend, device, channels_last):
    label = MAPS["odd"].to(device)
    for ids in (None, label.transpose(1, 2).contiguous().transpose(1, 2)):
        arguments = (label, ids, 4, -1, torch.float16, channels_last, backend)
        torch.library.opcheck(torch.ops.hdgan.encode_labels, arguments)


LABEL = torch.zeros(1, 2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("label", "ids", "n", "error", "says"),
    [
        (LABEL.float(), None, 3, TypeError, "label of an integer dtype, got torch.float32"),
        (LABEL, LABEL.float(), 3, TypeError, "ids of an integer dtype"),
        (LABEL, LABEL.bool(), 3, TypeError, "got torch.bool"),
        (LABEL[0], None, 3, ValueError, r"got \(2, 2\)"),
        (LABEL[:, :0], None, 3, ValueError, "non-empty label"),
        (LABEL, torch.zeros(1, 2, 3, dtype=torch.int64), 3, ValueError, r"ids of shape \(1, 2, 2\), that of label"),
        (LABEL, torch.zeros(1, 2, 2, dtype=torch.int64, device="meta"), 3, ValueError, "label on cpu, ids on meta"),
        (LABEL, None, 0, ValueError, "1 <= n_labels <= 16777216, got 0"),
        (LABEL, None, 2**24 + 1, ValueError, "got 16777217"),
    ],
)
def test_wrong_input(label, ids, n, error, says):
    with pytest.raises(error, match=says):
        encode_labels(label, ids, n)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"dtype": torch.uint8}, TypeError, "floating-point dtype of the result, got torch.uint8"),
        ({"memory_format": torch.preserve_format}, ValueError, "channels_last, got torch.preserve_format"),
    ],
)
def test_wrong_result(options, error, says):
    with pytest.raises(error, match=f"encode_labels: expected .*{says}"):
        encode_labels(LABEL, None, 3, **options)


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        encode_labels(LABEL, None, 2, backend="abacus")


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; `make` makes images."""
    label, ids = (torch.empty(1, 512, 1024, dtype=dtype, device="meta") for dtype in (torch.uint8, torch.int32))
    yield "fwd", (label, ids, make(1, 36, 512, 1024), 255)
    yield "fwd", (label, None, make(1, 35, 512, 1024), 255)
    codes = torch.empty(1, 512, 1024, dtype=torch.int32, device="meta")
    yield "codes", (label, ids, codes, 35, 255)
    yield "codes", (label, None, codes, 35, 255)
