import pytest
import torch

from hdgan.ops import BackendError, instance_index
from tests.ops.cases import BIG, MAPS


@pytest.mark.parametrize("name", MAPS)
def test_rows_recover_the_ids(name):
    ids = MAPS[name]
    index = instance_index(ids)
    assert index.rows.shape == ids.shape
    assert index.rows.dtype == torch.int32
    assert index.ids.dtype == ids.dtype
    assert index.ids[index.rows.long()].tolist() == ids.tolist()


@pytest.mark.parametrize("name", MAPS)
def test_table_is_ordered_by_image_then_id(name):
    ids = MAPS[name]
    index = instance_index(ids)
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


def test_same_id_in_two_images_is_two_instances():
    index = instance_index(torch.tensor([[[5, 5]], [[5, 9]]]))
    assert index.rows.tolist() == [[[0, 0]], [[1, 2]]]
    assert index.ids.tolist() == [5, 5, 9]


def test_ids_of_31_bits_and_more_stay_exact():
    ids = torch.tensor([[[BIG, BIG + 1, -BIG], [2**62, 2**62 + 1, 2**31 - 1]]])
    index = instance_index(ids)
    assert index.ids.tolist() == sorted(ids.flatten().tolist())
    assert index.counts.tolist() == [1] * 6


def test_accepts_a_channel_axis():
    ids = MAPS["odd"]
    with_axis, without = instance_index(ids.unsqueeze(1)), instance_index(ids)
    assert all(torch.equal(a, b) for a, b in zip(with_axis, without, strict=True))


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
    with pytest.raises(BackendError, match="'abacus' is not available"):
        instance_index(MAPS["odd"], backend="abacus")
