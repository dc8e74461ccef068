"""Whatever is wrong with options, data, checkpoints or disk: one clear line, status 2, and nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hdgan.checkpoints import MODEL_FILE, TRAINING_FILE, checkpoint_path
from hdgan.commands.main import main, train_main
from hdgan.data import SizeConfig
from hdgan.families import Pix2PixHDLoss, Pix2PixHDStage
from hdgan.training import TrainConfig

MakeConfig = Callable[..., TrainConfig]
MakeData = Callable[..., Path]
Refused = Callable[..., str]
Damage = Callable[[Path], object]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], to_arguments: Callable[[TrainConfig], list[str]]) -> Refused:
    """Run a command that must fail with status 2 and return the one line that it prints."""

    def run(*given: TrainConfig | str, command: Callable[[list[str]], int] = train_main) -> str:
        arguments = [part for item in given for part in ([item] if isinstance(item, str) else to_arguments(item))]
        assert command(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("hdgan: error: ")
        return lines[0]

    return run


@pytest.fixture
def refused_option(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command whose options are refused while they are read; return what is said, without the frame around it."""

    def run(*arguments: str) -> str:
        try:
            status = train_main(list(arguments))
        except SystemExit as stop:
            status = stop.code  # type: ignore[assignment]
        assert status == 2
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().err).split())

    return run


def damaged(root: Path, name: str, array: np.ndarray) -> None:
    Image.fromarray(array).save(root / name)


DATA: dict[str, tuple[Damage, str]] = {
    "missing folder": (shutil.rmtree, r"data is not a folder; set --data\.root"),
    "empty folder": (lambda root: [shutil.rmtree(path) for path in root.iterdir()], r"data has no known structure"),
    "no label maps": (
        lambda root: [path.unlink() for path in (root / "train_label").iterdir()], r"train_label contains no images"
    ),
    "no instance maps": (
        lambda root: shutil.rmtree(root / "train_inst"), r"no instance maps for phase train: .*--model\.no-instances"
    ),
    "no photos": (lambda root: shutil.rmtree(root / "train_img"), r"no photos for phase train"),
    "mismatched sizes": (
        lambda root: damaged(root, "train_img/s1_img.png", np.zeros((16, 30, 3), np.uint8)),
        r"s1_label\.png is 32x16, but \S+s1_img\.png is 30x16; make them the same size",
    ),
    "label too high": (
        lambda root: damaged(root, "train_label/s0_label.png", np.full((16, 32), 4, np.uint8)),
        r"s0_label\.png contains label 4, but --model\.n-labels is 4; set --model\.n-labels to at least 5",
    ),
    "truncated PNG": (
        lambda root: os.truncate(root / "train_img" / "s5_img.png", 400),
        r"s5_img\.png cannot be read \(.+\); restore it",
    ),
    "empty PNG": (lambda root: os.truncate(root / "train_img" / "s5_img.png", 0), r"s5_img\.png cannot be read"),
    "colours as labels": (
        lambda root: damaged(root, "train_label/s2_label.png", np.zeros((16, 32, 3), np.uint8)),
        r"s2_label\.png: this label map has mode RGB .+if each colour is a class, `hdgan data convert`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used(
    refused: Refused, make_config: MakeConfig, make_data: MakeData, tmp_path: Path, case: str
) -> None:
    damage, complaint = DATA[case]
    root = make_data()
    damage(root)
    config = make_config(tmp_path / "run")
    assert re.search(complaint, refused(replace(config, data=replace(config.data, root=root))))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_damaged_inside(
    refused: Refused, make_config: MakeConfig, make_data: MakeData, tmp_path: Path, workers: int
) -> None:
    """Found only when it is decoded: the header is fine, and it is none of those that are looked at first."""
    root = make_data()
    file = root / "train_img" / "s1_img.png"
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes(byte ^ 0x5A for byte in content[100:-20]) + content[-20:])
    config = make_config(tmp_path / "run")
    config = replace(config, data=replace(config.data, root=root, workers=workers))
    assert re.search(r"s1_img\.png cannot be read \(.+\); restore it", refused(config))


def test_scenes_have_their_own_number_of_classes(refused: Refused, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    line = refused(replace(config, data=replace(config.data, root=None)))
    assert re.search(r"the built-in scenes have \d+ classes, but the model has 4 \(--model\.n-labels\)", line)


def test_a_crop_larger_than_the_picture(refused: Refused, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    stages = {"global": replace(config.stages["global"], size=SizeConfig(width=16, crop_width=24))}
    arguments = replace(config, stages=stages | {name: config.stages[name] for name in ("enhancer", "joint")})
    assert "the crop of 24x24 is larger than the image, which is 16x8 after scaling" in refused(arguments)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["demo", "--nope", "3"], "Unrecognized options: --nope"),
        (["--log.keep", "0"], "--log.keep is 0: give a whole number from 1"),
        (["--log.keep", "many"], "many"),
        (["--stages.joint.n-enhancers", "0"], "stage joint has 0 enhancers and 2 scales, fewer than the stage before"),
        (["--stages.enhancer.n-scales", "1"], "a run can only grow"),
        (["--stages.global.generator", "enhancer"], "stage global trains only the enhancer but has none"),
        (["--model.generator.ngf", "0"], "ngf is 0"),
        (["--model.feature-channels", "-1"], "--model.feature-channels is -1: give a whole number from 0"),
        (["--model.discriminator.n-layers", "0"], "--model.discriminator.n-layers is 0: give a whole number from 1"),
        (["--stages.joint.n-enhancers", "-1"], "--stages.joint.n-enhancers is -1: give a whole number from 0"),
        (["--log.style-images", "0"], "--log.style-images is 0: give a whole number from 1"),
        (["--optim.ema-decay", "2"], "--optim.ema-decay is 2.0: give a number from 0 to 1"),
        (["--optim.clip", "0"], "--optim.clip is 0.0: give a number above 0"),
        (["--loss.vgg", "-1"], "--loss.vgg is -1.0: give a number from 0"),
        (["--augment.policy", "colour"], "Expected one of ('color', 'translation', 'cutout')"),
        (["--augment.policy", "color", "--augment.probability", "2"], "--augment.probability is 2.0: give a number"),
        (["--augment.adaptive"], "--augment.adaptive has no effect without --augment.policy: set that too"),
        (["--augment.policy", "cutout", "--augment.speed", "9"], "--augment.speed 9 has no effect without --augment."),
        (["crn", "--augment.policy", "color"], "--augment.policy is color, but the models of the family crn have no"),
        (["--seed", "-1"], "--seed is -1: give a whole number from 0"),
        (["--threads", "1000000"], "--threads is 1000000: give a whole number from 1 to 1024"),
        (["--stages.joint.epochs", "inf"], "--stages.joint.epochs is inf: give a number from 0"),
        (
            ["--model.generator.ngf", "1000000000"],
            "ngf is 1000000000: give a whole number from 1 to 4096",
        ),
        (["--threads", "0"], "--threads is 0: give a whole number from 1"),
        (["--precision", "float8"], "float8"),
        (["nosuchpreset"], "nosuchpreset"),
    ],
)
def test_options_that_cannot_work(refused_option: Refused, options: list[str], complaint: str) -> None:
    assert complaint in refused_option(*options)


@pytest.mark.parametrize(
    ("device", "complaint"),
    [("toaster", "--device toaster is not a device"), ("cuda:99", "needs CUDA device 99, but PyTorch sees")],
)
def test_devices_that_do_not_exist(
    refused: Refused, make_config: MakeConfig, tmp_path: Path, device: str, complaint: str
) -> None:
    assert complaint in refused(make_config(tmp_path / "run", device=device))


def test_cuda_without_a_gpu(
    refused: Refused, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    line = refused(make_config(tmp_path / "run", device="cuda"))
    assert "--device cuda needs CUDA device 0, but PyTorch sees 0 CUDA devices: use --device cpu" in line


@pytest.mark.parametrize("content", [None, b"", b"not weights"], ids=["missing", "empty", "damaged"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_vgg_weights_that_cannot_be_had(
    refused: Refused, make_config: MakeConfig, tmp_path: Path, content: bytes | None, ending: str
) -> None:
    file = tmp_path / f"vgg.{ending}"
    if content is not None:
        file.write_bytes(content)
    stages = {"global": Pix2PixHDStage(size=SizeConfig(width=32))}
    line = refused(make_config(tmp_path / "run", stages=stages, loss=Pix2PixHDLoss(vgg=10.0, network_weights=file)))
    assert f"vgg.{ending} " in line
    assert "--loss.network-weights FILE" in line


def test_images_too_small_for_vgg(refused: Refused, make_config: MakeConfig, tmp_path: Path) -> None:
    line = refused(make_config(tmp_path / "run", loss=Pix2PixHDLoss(network_weights=tmp_path)))
    assert "some training images have a side of 8 pixels, but VGG19" in line
    assert "--loss.network random" in line


def test_batches_that_do_not_divide(refused: Refused, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    stages = config.stages | {"joint": replace(config.stages["joint"], batch_size=4, micro_batch=3)}
    assert "--stages.joint.micro-batch 3 does not divide the 4 images" in refused(replace(config, stages=stages))


def test_a_folder_that_holds_a_run(refused: Refused, make_config: MakeConfig, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert re.search(r"finished already contains a run, saved at step 9: .*--resume", refused(make_config(run)))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_resume_of_what_is_no_run(refused: Refused, make_config: MakeConfig, run: Path, tmp_path: Path) -> None:
    assert "nowhere is not a run" in refused("--resume", str(tmp_path / "nowhere"))
    assert f"{tmp_path} is not a run" in refused(f"--resume={tmp_path}")
    assert "--resume needs the folder of a run" in refused("--resume")
    assert "leave the preset demo out" in refused("--resume", str(run), "demo")
    shutil.copy(run / "config.json", tmp_path)
    assert f"{tmp_path} has no checkpoint to resume from" in refused("--resume", str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert "config.json is damaged" in refused("--resume", str(tmp_path))


def test_a_resume_cannot_change_what_was_trained(refused: Refused, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    line = refused("--resume", str(copy), "--model.generator.n-blocks", "2")
    assert "generator.n_blocks is 1 in the checkpoint, 2 in the config" in line
    assert "ends at step 7" in refused("--resume", str(copy), "--stages.joint.images", "2")
    assert "the schedule is now in stage joint from step 7" in refused(
        "--resume", str(copy), "--stages.global.images", "8"
    )
    assert "does not train the same networks" in refused("--resume", str(copy), "--stages.joint.no-encoder")


def test_init_from_what_is_no_checkpoint(
    refused: Refused, make_config: MakeConfig, dataset: Path, tmp_path: Path
) -> None:
    assert "contains no checkpoint" in refused(make_config(tmp_path / "run", init_from=dataset))
    assert "nowhere does not exist" in refused(make_config(tmp_path / "run", init_from=tmp_path / "nowhere"))
    label = dataset / "test_label" / "s0_label.png"
    assert "is not a readable safetensors file" in refused(make_config(tmp_path / "run", init_from=label))


@pytest.mark.parametrize("kept", [0, 7, 100, -10])
@pytest.mark.parametrize("name", [MODEL_FILE, TRAINING_FILE])
def test_a_checkpoint_that_was_cut_short(refused: Refused, run: Path, tmp_path: Path, name: str, kept: int) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    file = checkpoint_path(copy, 9) / name
    os.truncate(file, kept % file.stat().st_size)
    line = refused("--resume", str(copy))
    assert f"step-00000009{os.sep}{name}" in line
    assert "to resume from the previous checkpoint" in line
    # What the message says helps.
    shutil.rmtree(checkpoint_path(copy, 9))
    assert train_main(["--resume", str(copy)]) == 0
    if name == MODEL_FILE:
        os.truncate(file, 50)
        line = refused("generate", str(copy), "--label", "x", "--out", "y", "--device", "cpu", command=main)
        assert "model.safetensors (50 bytes) is not a readable safetensors file" in line


def test_a_checkpoint_of_another_architecture(refused: Refused, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    file = checkpoint_path(copy, 9) / MODEL_FILE
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors["generator.head.weight"] = tensors["generator.head.weight"][:2].clone()
    del tensors["encoder.head.bias"]
    save_file(tensors, file, metadata)
    for line in (
        refused("--resume", str(copy)),
        refused("generate", str(copy), "--label", "x", "--out", "y", "--device", "cpu", command=main),
    ):
        assert "1 missing: encoder.head.bias" in line
        assert "generator.head.weight is (2, 2, 7, 7) instead of (3, 2, 7, 7)" in line
    save_file(tensors, file)
    assert "was not written by hdgan" in refused("--resume", str(copy))


def test_a_folder_below_a_file(refused: Refused, make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(make_config(tmp_path / "file" / "run"))
    assert re.search(r"--out \S+file/run lies in \S+file, which is not a folder: choose another", line)
    line = refused(make_config(tmp_path / "file"))
    assert re.search(r"--out \S+file exists and is not a folder: choose another", line)


def test_a_folder_without_permission(
    refused: Refused, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", deny)
    assert re.search(r"cannot write \S+config\.json: Permission denied; ", refused(make_config(tmp_path / "run")))


def test_a_disk_that_fills_up(
    refused: Refused, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, allowed = os.fsync, [20]

    def fill(handle: int) -> None:
        allowed[0] -= 1
        if allowed[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        line = refused(make_config(tmp_path / "run"))
    assert re.search(r"No space left on device; free space", line)
    assert train_main(["--resume", str(tmp_path / "run")]) == 0
