import pytest
import torch

from hdgan.ops import BackendError, boundary_map, encode_labels
from tests.ops.cases import BIG, MAPS


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
def test_planes_equal_brute_force(name):
    label = MAPS[name]
    for dontcare in (None, 1):
        result = encode_labels(label, label, 3, dontcare=dontcare)
        assert torch.equal(result[:, :3], brute_force_planes(label, 3, dontcare))
        assert torch.equal(result[:, 3], brute_force_boundary(label).float())


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64]
)
def test_label_dtypes(dtype):
    label = torch.tensor([[[0, 1], [2, 100]]]).to(dtype)
    assert torch.equal(encode_labels(label, None, 101), brute_force_planes(label, 101))


def test_uint8_label_beyond_its_classes():
    label = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    assert encode_labels(label, None, 300).argmax(1).tolist() == [[[0, 255]]]


def test_labels_outside_the_classes_set_no_plane():
    label = torch.tensor([[[0, -1], [3, 255]]])
    assert encode_labels(label, None, 3).sum((0, 2, 3)).tolist() == [1, 0, 0]
    assert torch.equal(encode_labels(label, None, 3, dontcare=255), encode_labels(label, None, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_memory_format(dtype):
    label = MAPS["odd"]
    plain = encode_labels(label, label, 4, dtype=dtype)
    formatted = encode_labels(label, label, 4, dtype=dtype, memory_format=torch.channels_last)
    assert plain.dtype == formatted.dtype == dtype
    assert plain.is_contiguous()
    assert formatted.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, formatted)
    assert set(plain.unique().tolist()) <= {0.0, 1.0}


def test_channel_axis():
    label = MAPS["odd"]
    assert torch.equal(encode_labels(label[:, None], label[:, None], 4), encode_labels(label, label, 4))


LABEL = torch.zeros(1, 2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("label", "ids", "n", "error", "says"),
    [
        (LABEL.float(), None, 3, TypeError, "label of an integer dtype, got torch.float32"),
        (LABEL, LABEL.float(), 3, TypeError, "ids of an integer dtype"),
        (LABEL, LABEL.bool(), 3, TypeError, "got torch.bool"),
        (LABEL[0], None, 3, ValueError, r"got \(2, 2\)"),
        (LABEL[:, :0], None, 3, ValueError, "non-empty label"),
        (LABEL, torch.zeros(1, 2, 3, dtype=torch.int64), 3, ValueError, r"ids of shape \(1, 2, 2\), as label"),
        (LABEL, torch.zeros(1, 2, 2, dtype=torch.int64, device="meta"), 3, ValueError, "label on cpu, ids on meta"),
        (LABEL, None, 0, ValueError, "n_labels >= 1, got 0"),
    ],
)
def test_wrong_input(label, ids, n, error, says):
    with pytest.raises(error, match=says):
        encode_labels(label, ids, n)


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        encode_labels(LABEL, None, 2, backend="abacus")
