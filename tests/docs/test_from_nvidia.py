"""docs/from-nvidia.md: it names every option of NVIDIA's code, and the options of hdgan that it names exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.options import options_in, options_of

PAGE = (Path(__file__).parents[2] / "docs" / "from-nvidia.md").read_text(encoding="utf-8")
FLAGS = {
    "base": """name gpu_ids checkpoints_dir model norm use_dropout data_type verbose fp16 local_rank batchSize loadSize
        fineSize label_nc input_nc output_nc dataroot resize_or_crop serial_batches no_flip nThreads max_dataset_size
        display_winsize tf_log netG ngf n_downsample_global n_blocks_global n_blocks_local n_local_enhancers
        niter_fix_global no_instance instance_feat label_feat feat_num load_features n_downsample_E nef n_clusters""",
    "train": """display_freq print_freq save_latest_freq save_epoch_freq no_html debug continue_train load_pretrain
        which_epoch phase niter niter_decay beta1 lr num_D n_layers_D ndf lambda_feat no_ganFeat_loss no_vgg_loss
        no_lsgan pool_size""",
    "test": """ntest results_dir aspect_ratio phase which_epoch how_many cluster_path use_encoded_image export_onnx
        engine onnx""",
}
"""Names of NVIDIA's options by the file that adds them."""
COMMANDS = ("train cityscapes-1024p", "generate", "styles cluster", "evaluate", "export")


def rows(name: str) -> list[list[str]]:
    """The cells of the table of one of NVIDIA's files."""
    table = PAGE.split(f"### {name}_options.py\n")[1].split("\n#")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", FLAGS)
def test_each_flag_of_nvidia_is_listed_once(name: str) -> None:
    listed = [flag for cells in rows(name) for flag in options_in(cells[0])]
    assert sorted(listed) == sorted(f"--{flag}" for flag in FLAGS[name].split())


def test_the_options_in_their_place_exist() -> None:
    known = set().union(*map(options_of, COMMANDS))
    cells = [cell for name in FLAGS for row in rows(name) for cell in row[1:2]]
    named = {option.replace("stages.NAME.", "stages.joint.") for cell in cells for option in options_in(cell)}
    assert len(named) > 40
    assert named - known == set()
    assert all(options_in(cell) or cell in ("none", "a preset") for cell in cells)
