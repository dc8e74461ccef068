"""What the Python blocks of the documentation find when the tests execute them: small files by their usual names."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hdgan.interop import nvidia
from hdgan.models import GlobalGenerator
from hdgan.scenes import Scene, render_scene

ROOT = Path(__file__).parents[2]


@dataclass
class Playground:
    """A folder in which the files that blocks name appear."""

    folder: Path
    run: Path
    """A finished run with its data, for blocks that compare runs/a with runs/b. Other runs are the model demo."""
    scorer: Path

    def __post_init__(self) -> None:
        self.scene: Scene = render_scene(0, "test", 0, 256, 128)
        self.kinds: dict[str, Callable[[Path], object]] = {
            r"runs/[ab]": lambda path: shutil.copytree(self.run, path),
            r"runs/[\w-]+": lambda path: shutil.copytree(ROOT / "hdgan" / "pretrained" / "demo", path),
            r".*scorer\.safetensors": lambda path: shutil.copyfile(self.scorer, path),
            r".*_net_G\.pth": _write_nvidia,
            r".*\.onnx": _write_onnx,
            r"styled\.pt2": lambda path: _write_pt2(_Painter(), path, self.scene),
            r"encoder\.pt2": lambda path: _write_pt2(_Colours(), path, self.scene),
            r".*label\w*\.(png|tif)": lambda path: _save(self.scene.label.astype(np.uint8), path),
            r".*inst\w*\.(png|tif)": lambda path: _save(self.scene.ids.astype(np.uint16), path),
            r".*photo\w*\.(png|jpg|tif)": lambda path: _save(self.scene.photo, path),
            r"FOLDER": self._write_folder,
        }

    def furnish(self, block: str) -> None:
        """Write the files that a block names and that are not there yet."""
        values = [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
        for name in (value for value in values if isinstance(value, str)):
            make = next((make for kind, make in self.kinds.items() if re.fullmatch(kind, name)), None)
            path = self.folder / name
            if make is not None and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                make(path)

    def _write_folder(self, path: Path) -> None:
        """The dataset of docs/how-to/add-a-layout.md."""
        for name, values in (("masks", self.scene.label.astype(np.uint8)), ("images", self.scene.photo)):
            (path / name / "train").mkdir(parents=True)
            _save(values, path / name / "train" / "a.png")


def _save(values: np.ndarray, path: Path) -> None:
    Image.fromarray(values).save(path)


def _write_nvidia(path: Path) -> None:
    """A generator in the form of NVIDIA's code."""
    torch.save(nvidia.to_state_dict(GlobalGenerator(in_channels=5, ngf=4, n_downsample=1, n_blocks=1)), path)


class _Painter(nn.Module):
    """With the inputs and the output of a generator that takes features, of which it makes greys."""

    def forward(self, label: Tensor, instance: Tensor, features: Tensor) -> Tensor:
        return (127.5 * (features.mean(-1, keepdim=True) + 1)).to(torch.uint8).expand(-1, -1, -1, 3).clone()


class _Colours(nn.Module):
    """With the inputs and the output of an encoder. It returns the photo itself."""

    def forward(self, photo: Tensor, instance: Tensor) -> Tensor:
        return photo / 127.5 - 1


def _write_pt2(program: nn.Module, path: Path, scene: Scene) -> None:
    """A program with the inputs and the output of an exported one, which takes no time to make."""
    maps = torch.zeros(1, *scene.label.shape, dtype=torch.int32)
    pictures = torch.zeros(1, *scene.photo.shape)
    every = {"label": maps, "instance": maps, "features": pictures, "photo": pictures.to(torch.uint8)}
    names = list(signature(program.forward).parameters)
    description = {"inputs": json.dumps([{"name": name} for name in names])}
    traced = torch.export.export(program, (), {name: every[name] for name in names})
    torch.export.save(traced, path, extra_files={"hdgan.json": json.dumps(description)})


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
