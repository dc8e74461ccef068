"""NVIDIA's clusters are read and written; a file that holds more than arrays does nothing."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hdgan.errors import CheckpointError, ConfigError
from hdgan.interop.nvidia.clusters import read_nvidia, write_nvidia
from hdgan.styles import StyleBank

CENTRES = {0: np.array([[0.25, -1, 0.5]]), 26: np.arange(6.0).reshape(2, 3)}


def write_npy(path: Path, pickled: bytes, shape: tuple[int, ...] = ()) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": shape})
    path.write_bytes(buffer.getvalue() + pickled)


def assert_centres(bank: StyleBank) -> None:
    assert bank.clusters.keys() == {0, 26}
    for label, there in bank.clusters.items():
        np.testing.assert_array_equal([cluster.centre for cluster in there], CENTRES[label].astype(np.float32))
        assert {cluster.count for cluster in there} == {None}
    np.testing.assert_allclose(bank.means[26], [1.5, 2.5, 3.5])
    np.testing.assert_allclose(bank.overall, (CENTRES[0][0] + [1.5, 2.5, 3.5]) / 2)


@pytest.mark.parametrize("protocol", range(2, 5))
def test_what_numpy_saves_is_read(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "features_clustered_010.npy"
    np.save(file, CENTRES, allow_pickle=True)  # type: ignore[arg-type]
    assert_centres(read_nvidia(file))
    write_npy(file, pickle.dumps(np.array(CENTRES, object), protocol))
    assert_centres(read_nvidia(file))
    single = {label: np.asfortranarray(values.astype(">f4")) for label, values in CENTRES.items()}
    write_npy(file, pickle.dumps(np.array(single, object), protocol))
    assert_centres(read_nvidia(file))


def test_a_file_of_python_2_is_read(tmp_path: Path) -> None:
    # As Python 2 writes protocol 2: bytes as SHORT_BINSTRING, which is `U`.
    values = CENTRES[26]
    raw = values.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    double = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    thing = b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    inner = array + b"(K\x01K\x02K\x03\x86" + double + b"\x89U" + struct.pack("B", len(raw)) + raw + b"tb"
    write_npy(tmp_path / "x.npy", b"\x80\x02" + array + b"(K\x01)" + thing + b"\x89]}K\x1a" + inner + b"satb.")
    bank = read_nvidia(tmp_path / "x.npy")
    np.testing.assert_array_equal([cluster.centre for cluster in bank.clusters[26]], values)


def test_what_is_written_is_what_numpy_reads(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", CENTRES, allow_pickle=True)  # type: ignore[arg-type]
    out = tmp_path / "features_clustered_010.npy"
    write_nvidia(read_nvidia(tmp_path / "in.npy"), out)
    assert b"_core" not in out.read_bytes()
    table = np.load(out, allow_pickle=True, encoding="latin1").item()
    assert table.keys() == CENTRES.keys()
    for label, values in table.items():
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, CENTRES[label])
    assert_centres(read_nvidia(out))
    with pytest.raises(ConfigError, match=r"x\.txt must end in \.npy"):
        write_nvidia(read_nvidia(out), tmp_path / "x.txt")


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("ran"),)


class _Module:
    def __reduce__(self) -> tuple[object, ...]:
        return np.lib.format.open_memmap, ("ran.npy", "w+", float, (1,))


@pytest.mark.parametrize("evil", [_Evil(), _Module(), {0: _Evil()}, np.float64])
def test_nothing_but_arrays_is_ever_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: object) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (evil, np.array(evil, object)):
        write_npy(tmp_path / "x.npy", pickle.dumps(content, 4))
        with pytest.raises(CheckpointError, match=r"x\.npy contains \S+, and loading it could run any code"):
            read_nvidia(tmp_path / "x.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy"]


def test_files_of_another_content_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    with pytest.raises(CheckpointError, match="does not exist"):
        read_nvidia(file)
    np.save(file, CENTRES, allow_pickle=True)  # type: ignore[arg-type]
    whole = file.read_bytes()
    contents: list[object] = [
        [1, 2],
        {},
        {"car": CENTRES[0]},
        {0: [1.0]},
        {0: CENTRES[0][0]},
        {0: CENTRES[0] * np.nan},
        {0: CENTRES[0] * 1e300},
        {0: CENTRES[0].astype(int)},
        {0: CENTRES[0], 1: CENTRES[0][:, :2]},
    ]
    pickled = [pickle.dumps(_boxed(content), 4) for content in contents]
    written = [b"", b"nonsense", whole[:60], whole[:-40], whole.replace(b"O", b"f", 1)]
    for content in written:
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.npy is not a file of clusters"):
            read_nvidia(file)
    for content in pickled:
        write_npy(file, content)
        with pytest.raises(CheckpointError, match=r"x\.npy is not a file of clusters"):
            read_nvidia(file)
    np.save(file, CENTRES[0])
    with pytest.raises(CheckpointError, match=r"x\.npy is not a file of clusters \(an array of float64 and shape"):
        read_nvidia(file)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    ],
    ids=["memo", "bytearray", "bytes", "depth"],
)
def test_a_few_bytes_take_no_more_memory_than_a_few(tmp_path: Path, program: bytes) -> None:
    write_npy(tmp_path / "x.npy", program)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"x\.npy is not a file of clusters"):
            read_nvidia(tmp_path / "x.npy")
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def _boxed(content: object) -> np.ndarray:
    box = np.empty((), object)
    box[()] = content
    return box
