"""What the Python blocks of the documentation find when the tests execute them: files and variables by usual names."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from hdgan.interop import nvidia
from hdgan.models import GlobalGenerator
from hdgan.scenes import Scene, render_scene

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 256, 128
SIZE = HEIGHT // 4
"""Side of tensors."""


@dataclass
class Playground:
    """A folder with the files that blocks name. A run is the model demo, unless two are compared."""

    folder: Path
    run: Path
    """A finished run with its data."""
    scorer: Path

    def __post_init__(self) -> None:
        self.scene: Scene = render_scene(0, "test", 0, WIDTH, HEIGHT)
        self.kinds: dict[str, Callable[[Path], object]] = {
            r"runs/[ab]": lambda path: shutil.copytree(self.run, path),
            r"runs/[\w-]+": lambda path: shutil.copytree(ROOT / "hdgan" / "pretrained" / "demo", path),
            r".*scorer\.safetensors": lambda path: path.symlink_to(self.scorer),
            r".*_net_G\.pth": _write_nvidia,
            r".*\.onnx": _write_onnx,
            r".*(label|slide)\w*\.(png|tif)": lambda path: Image.fromarray(self.scene.label.astype(np.uint8)).save(
                path
            ),
            r".*inst\w*\.(png|tif)": lambda path: Image.fromarray(self.scene.ids.astype(np.uint16)).save(path),
            r".*photo\w*\.(png|jpg|tif)": lambda path: Image.fromarray(self.scene.photo).save(path),
            r"FOLDER": self._write_folder,
        }

    def furnish(self, block: str) -> None:
        """Write the files that a block names and that are not there yet."""
        names = [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
        for name in filter(lambda value: isinstance(value, str), names):
            make = next((make for kind, make in self.kinds.items() if re.fullmatch(kind, name)), None)
            path = self.folder / name
            if make is not None and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                make(path)

    def variables(self) -> dict[str, Any]:
        """Tensors and networks that readers have: small ones."""
        maps = {"label": self.scene.label, "ids": self.scene.ids}
        maps = {name: torch.from_numpy(values[None, :SIZE, :SIZE].astype(np.int64)) for name, values in maps.items()}
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU())
        return maps | {
            "__name__": "documentation",
            "torch": torch,
            "nn": nn,
            "features": torch.randn(1, 3, SIZE, SIZE),
            "image": torch.rand(1, 3, SIZE, SIZE),
            "x": torch.randn(1, 4, SIZE, SIZE),
            "r": torch.randn(1, 4, SIZE, SIZE),
            "network": network,
            "example": torch.randn(1, 3, SIZE, SIZE),
            "norm": nn.InstanceNorm2d(4, affine=True),
        }

    def _write_folder(self, path: Path) -> None:
        """The dataset of docs/how-to/add-a-layout.md."""
        for name in ("masks", "images"):
            (path / name / "train").mkdir(parents=True)
        Image.fromarray(self.scene.label.astype(np.uint8)).save(path / "masks" / "train" / "a.png")
        Image.fromarray(self.scene.photo).save(path / "images" / "train" / "a.png")


def _write_nvidia(path: Path) -> None:
    """A generator in the form of NVIDIA's code."""
    torch.save(nvidia.to_state_dict(GlobalGenerator(in_channels=5, ngf=4, n_downsample=1, n_blocks=1)), path)


def _write_onnx(path: Path) -> None:
    """A program with the inputs and the output of an exported model, which takes no time to make. It paints labels."""
    from onnx import TensorProto, helper, save

    maps = [helper.make_tensor_value_info(name, TensorProto.INT32, [1, "H", "W"]) for name in ("label", "instance")]
    seed = helper.make_tensor_value_info("seed", TensorProto.INT64, [1])
    picture = helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, "H", "W", 3])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [3])
    nodes = [
        helper.make_node("Cast", ["label"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Unsqueeze", ["bytes", "axis"], ["channel"]),
        helper.make_node("Concat", ["channel"] * 3, ["picture"], axis=3),
    ]
    graph = helper.make_graph(nodes, "stand-in", [*maps, seed], [picture], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"classes": "[]"})
    save(model, path)
