"""Files of weights in all formats that there were, and those that promise more than they hold."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hdgan.errors import CheckpointError
from hdgan.weights import read_weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.pth"


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sequential(nn.BatchNorm2d(3)))


def assert_same(found: Any, expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(found[key].dtype == expected[key].dtype for key in expected)


WRITERS: dict[str, Callable[[nn.Module, Path], object]] = {
    "state dict": lambda net, path: torch.save(net.state_dict(), path),
    "before 1.6": lambda net, path: torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False),
    "protocol 4": lambda net, path: torch.save(net.state_dict(), path, pickle_protocol=4),
    "wrapped": lambda net, path: torch.save(
        {"state_dict": net.state_dict(), "epoch": 3, "optimizer": torch.optim.Adam(net.parameters()).state_dict()}, path
    ),
    "wrapped twice": lambda net, path: torch.save({"model": {"netG": net.state_dict()}}, path),
    "parameters": lambda net, path: torch.save(
        {key: nn.Parameter(value, value.is_floating_point() and False) for key, value in net.state_dict().items()}, path
    ),
    "module": torch.save,
    "module before 1.6": lambda net, path: torch.save(net, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda net, path: save_file(net.state_dict(), path),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRITERS)
def test_every_way_of_saving_gives_the_same_weights(name: str, file: Path) -> None:
    net = network()
    WRITERS[name](net, file)
    assert_same(read_weights(file), net.state_dict())


def test_views_types_and_shared_numbers_are_kept(file: Path) -> None:
    whole = torch.arange(24).view(4, 6)
    state = {"part": whole[1:3, ::2], "turned": whole.T, "none": torch.zeros(0, 3)}
    state |= {str(dtype): torch.ones(2, dtype=dtype) for dtype in (torch.float64, torch.bfloat16, torch.int8)}
    torch.save(state, file)
    assert_same(read_weights(file), state)


def test_a_compressed_copy_and_the_other_byte_order_are_read(file: Path, tmp_path: Path) -> None:
    state = {"a": torch.arange(5, dtype=torch.float32), "b": torch.arange(3)}
    torch.save(state, file)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "big.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif name.endswith(("data/0", "data/1")):
                width = 4 if name.endswith("0") else 8
                content = b"".join(content[i : i + width][::-1] for i in range(0, len(content), width))
            target.writestr(name, content)
    assert_same(read_weights(tmp_path / "big.pth"), state)


def quantized() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: {"a": torch.ones(2).to_sparse()}, r"a is made by torch\._utils\._rebuild_sparse_tensor, not a dense"),
        (lambda: {"a": torch.ones(2, device="meta")}, "a is made by .*meta"),
        (lambda: {"a": quantized()}, "a is made by .*_rebuild_qtensor"),
        (lambda: {"a": torch.nested.nested_tensor([torch.ones(2)])}, "a is made by .*nested"),
        (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, r"tensors of torch\.ComplexFloatStorage, not of plain"),
        (lambda: {"G": network().state_dict(), "D": network().state_dict()}, r"several networks \(G, D\); save each"),
        (lambda: {"a": {1, 2}}, "contains Python objects, not just weights"),
        (lambda: [torch.ones(2)], "is a list, not a state dict"),
    ],
)
def test_what_are_no_plain_weights_is_told(content: Callable[[], Any], says: str, file: Path) -> None:
    torch.save(content(), file)
    with pytest.raises(CheckpointError, match=rf"net\.pth.*{says}") as caught:
        read_weights(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08" + bytes(20), "compressed with gzip"),
        (b"", r"\(0 bytes\) is truncated or not a PyTorch file"),
        (struct.pack("<Q", 2**63) + b"{}", "not a readable safetensors file"),
        (struct.pack("<Q", 20_000_000) + b"{" + b" " * 20_000_000, "header of 20000000 bytes, .*HDGAN_MAX_GIB"),
    ],
)
def test_files_of_other_kinds_are_told(content: bytes, says: str, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        read_weights(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_cut_of_a_file_is_told(zipped: bool, file: Path) -> None:
    torch.save({"model.1.weight": torch.zeros(2, 3)}, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    for length in range(0, len(whole), 3):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"net\.pth .*(copy it|write it) again"):
            read_weights(file)


@pytest.mark.parametrize("content", [b".", b"]", b"0", b"(", b"a", b"R", b"\x80\x02.", b"\x80\x5b.", b"<html>"])
def test_what_is_no_pickle_of_weights_is_told(content: bytes, file: Path, recwarn: pytest.WarningsRecorder) -> None:
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is truncated or not a PyTorch file"):
        read_weights(file)
    assert not recwarn


@pytest.mark.filterwarnings("ignore")
def test_programs_and_other_archives_are_told(file: Path) -> None:
    torch.jit.script(nn.Conv2d(2, 2, 1)).save(file)
    with pytest.raises(CheckpointError, match="is a TorchScript program, not just weights"):
        read_weights(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match=r"is a zip archive that torch\.save did not write"):
        read_weights(file)


def claim(path: Path, size: tuple[int, ...], stride: tuple[int, ...], numel: int | None = None) -> None:
    """A file of four numbers whose tensor claims a size of its own."""
    numbers = torch.zeros(4)
    torch.save({"a": numbers}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith("/data.pkl")]
    content = members[name]

    def number(value: int) -> bytes:
        raw = value.to_bytes(12, "little", signed=True)
        return b"\x8a\x0c" + raw

    def numbers_of(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    begin = content.index(b"K\x04\x85")  # the size (4,), memoised, then the stride (1,)
    end = content.index(b"\x89", begin)
    content = content[:begin] + numbers_of(size) + numbers_of(stride) + content[end:]
    if numel is not None:
        at = content.index(b"K\x04t")
        content = content[:at] + number(numel) + content[at + 2 :]
    members[name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("size", "stride", "numel", "says"),
    [
        ((4,), (1,), None, None),
        ((10**10,), (1,), None, "truncated or not a PyTorch file"),
        ((10**10,), (1,), 10**10, "is a file of tensors, which takes"),
        ((10**12,), (0,), None, "is a file of tensors, which takes .* GiB of memory, more than the limit"),
        ((50,), (1,), 50, "truncated or not a PyTorch file"),
        ((-1,), (1,), None, "truncated or not a PyTorch file"),
        ((0, 2**70), (1, 1), None, "truncated or not a PyTorch file"),
    ],
)
def test_tensors_that_are_not_in_the_file(
    size: tuple[int, ...], stride: tuple[int, ...], numel: int | None, says: str | None, file: Path
) -> None:
    claim(file, size, stride, numel)
    if says is None:
        assert_same(read_weights(file), {"a": torch.zeros(4)})
        return
    with pytest.raises(CheckpointError, match=says):
        read_weights(file)


def test_weights_as_large_as_their_file_know_no_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"a": torch.ones(2**18)}
    torch.save(state, file)
    monkeypatch.setenv("HDGAN_MAX_GIB", str(2**-11))
    assert_same(read_weights(file), state)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(f"{file}z", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_weights(Path(f"{file}z"))
