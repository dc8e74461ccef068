"""Fixtures that several parts share: a made dataset and networks so small that a run takes a second."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

os.environ.pop("HDGAN_BACKEND", None)  # read when hdgan.ops is imported
if not torch.cuda.is_available():
    # Triton reads this when it is first imported: kernels then run on CPU tensors.
    os.environ.setdefault("TRITON_INTERPRET", "1")
# PyTorch's cache of compiled graphs does not see that the derivative of an op has changed.

from hdgan.checkpoints import MODEL_FILE
from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, SizeConfig
from hdgan.data.config import ScenesConfig
from hdgan.data.images import from_unit_range
from hdgan.evaluation import ScorerTraining, train_scorer
from hdgan.families import (
    CRNConfig,
    CRNLoss,
    CRNStage,
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    ModelConfig,
    PatchConfig,
    Pix2PixConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    Pix2PixHDLoss,
    Pix2PixHDStage,
    Pix2PixLoss,
    Pix2PixStage,
    UNetConfig,
)
from hdgan.families.common.losses import LossConfig
from hdgan.families.registry import family_of
from hdgan.families.saving import CLASS_MEAN, save_model
from hdgan.files.images import image_ending, save_image
from hdgan.files.slides import has_slides
from hdgan.files.video import has_video
from hdgan.models.segmenter import Segmenter, SegmenterConfig, save_segmenter
from hdgan.scenes import SPEC
from hdgan.styles.table import FeatureTable, Origin
from hdgan.training import PRESETS, LogConfig, OptimConfig, StageConfig, TrainConfig, train
from tests.hub.stand_in import TOKEN, HubState, serving

N_LABELS = 4
WIDTH, HEIGHT = 32, 16

MakeData = Callable[..., Path]
MakeConfig = Callable[..., TrainConfig]
MakeTable = Callable[..., FeatureTable]


def pytest_configure() -> None:
    """Compile into a cache of these sources: PyTorch's own does not see that the derivative of an op has changed."""
    ops = sorted((Path(__file__).parents[1] / "hdgan" / "ops").glob("*.py"))
    version = hashlib.sha256(b"".join(file.read_bytes() for file in ops)).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"hdgan-tests-inductor-{version}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count, what needs a GPU, a program or a library that is not there."""
    missing = [
        ("gpu", torch.cuda.is_available()),
        ("nvcc", shutil.which("nvcc") is not None),
        ("browser", find_chromium() is not None),
        ("timm", all(map(find_spec, ("timm", "torchvision")))),
        ("wandb", find_spec("wandb") is not None),
        ("mlflow", find_spec("mlflow") is not None),
        ("remote", find_spec("aiohttp") is not None),
        ("slides", has_slides("tifffile") and has_slides("zarr")),
        ("video", has_video()),
    ]
    markers = [marker for marker, found in missing if not found]
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in markers)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def find_chromium() -> str | None:
    """The browser that tests of the editor's page drive."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so would what the tests start."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tensors this small are slower with threads, and sums stay in one order."""
    torch.set_num_threads(1)


def write_dataset(root: Path, train: int = 6, test: int = 2, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write triples in NVIDIA's layout: a ground, a sky and boxes, which are instances, with a noisy colour each."""
    width, height = size
    for phase, count, seed in (("train", train, 0), ("test", test, 1)):
        rng = np.random.default_rng(seed)
        for i in range(count):
            label = np.zeros((height, width), np.uint8)
            label[height // 2 :] = 1
            ids = label.astype(np.int32)
            for k in range(3):
                left, top = rng.integers(width - 6), rng.integers(height - 6)
                box = np.s_[top : top + 6, left : left + 6]
                label[box] = 2 + k % 2
                ids[box] = (2 + k % 2) * 1000 + k
            colours = rng.integers(40, 215, (N_LABELS, 3))
            photo = np.clip(colours[label] + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)
            pictures = {
                f"{phase}_label/s{i}_label.png": label,
                f"{phase}_inst/s{i}_inst.tif": ids,
                f"{phase}_img/s{i}_img.png": photo,
            }
            for name, array in pictures.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / name)
    return root


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """Copy a folder to the storage in memory of fsspec, and give its URL as a command line would."""
    import fsspec

    monkeypatch.setattr("hdgan.files.storage.PAUSES", (0.0, 0.0))
    memory, made = fsspec.filesystem("memory"), []

    def put(folder: Path) -> Path:
        made.append(f"/{uuid4().hex}/set")
        memory.put(f"{folder}/", f"{made[-1]}/", recursive=True)
        return Path(f"memory:/{made[-1]}")

    yield put
    for path in made:
        memory.rm(path, recursive=True)


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder on this machine by HTTP, and give its URL."""
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Serving, directory=str(folder)))
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class _Serving(SimpleHTTPRequestHandler):
    """Python's server, which lists folders and knows no ranges."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Write a dataset of its own, for a test that damages it."""
    return lambda name="data", **options: write_dataset(tmp_path / name, **options)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training triples of 32x16 and two test triples, which no test may change."""
    return write_dataset(tmp_path_factory.mktemp("data"))


def three_stages(images: int, batch_size: int, **options: Any) -> dict[str, Pix2PixHDStage]:
    """The paper's three stages, at half and at full size."""
    half, full = SizeConfig(width=WIDTH // 2), SizeConfig(width=WIDTH)
    one = Pix2PixHDStage(size=half, n_scales=1, batch_size=batch_size, images=images, **options)
    two = replace(one, size=full, n_enhancers=1, n_scales=2)
    return {"global": one, "enhancer": replace(two, generator="enhancer", encoder=False), "joint": two}


@pytest.fixture(scope="session")
def make_config(dataset: Path) -> MakeConfig:
    """Make a tiny config: three stages of three steps on the shared dataset, logged at every step."""

    def make(out: Path, *, images: int = 6, batch_size: int = 2, **options: Any) -> TrainConfig:
        model = Pix2PixHDConfig(
            n_labels=N_LABELS,
            feature_channels=2,
            generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1, n_blocks_local=1),
            discriminator=DiscriminatorConfig(ndf=4, n_layers=2),
            encoder=EncoderConfig(nef=2, n_downsample=1),
        )
        log = LogConfig(
            metrics_every=1, samples_every=100, samples=1, checkpoint_every=100, val_images=1, style_images=2
        )
        usual = {
            "model": model,
            "data": DataConfig(root=dataset, workers=0),
            "stages": three_stages(images, batch_size),
            "loss": Pix2PixHDLoss(vgg=0.0),
            "optim": OptimConfig(ema_decay=0.9),
            "log": log,
            "device": "cpu",
            "recompute": True,  # decided, which saves the time of an estimate
            "threads": 1,
        }
        options = usual | options
        return family_of(options["model"]).train_config(out=out, **options)

    return make


@pytest.fixture(scope="session")
def family_configs(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, MakeConfig]:
    """The same for each family, without noise and with instance norms."""
    scorer = tmp_path_factory.mktemp("scorer") / "scorer.safetensors"
    save_segmenter(scorer, Segmenter(SegmenterConfig(N_LABELS, width=2)))
    unet, patch = UNetConfig(ngf=4, dropout_levels=()), PatchConfig(ndf=4, n_layers=2)
    pix2pix = Pix2PixConfig(n_labels=N_LABELS, norm="instance", generator=unet, discriminator=patch)
    crn = CRNConfig(n_labels=N_LABELS, n_modules=2, width=1 / 256)

    def make(
        stage: type[StageConfig],
        model: ModelConfig,
        loss: LossConfig,
        out: Path,
        *,
        images: int = 6,
        batch_size: int = 2,
        **options: Any,
    ) -> TrainConfig:
        one = stage(size=SizeConfig(width=WIDTH), batch_size=batch_size, images=images)
        return make_config(out, model=model, loss=loss, stages={"global": one}, **options)

    return {
        "pix2pixhd": make_config,
        "pix2pix": partial(make, Pix2PixStage, pix2pix, Pix2PixLoss()),
        "crn": partial(make, CRNStage, crn, CRNLoss(network=str(scorer))),
    }


@pytest.fixture(params=["pix2pixhd", "pix2pix", "crn"])
def make_family_config(request: pytest.FixtureRequest, family_configs: dict[str, MakeConfig]) -> MakeConfig:
    """`make_config` of one family after the other."""
    return family_configs[request.param]


@pytest.fixture(scope="session")
def run(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with features, which no test may change."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(make_config(out), console=Console(quiet=True))
    return out


@pytest.fixture(scope="session", params=[(1, "uint16"), (5, "uint16"), (2, "float32")], ids=str)
def stored_run(
    request: pytest.FixtureRequest, make_config: MakeConfig, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run on photos of another kind, read as stored. No test may change it or its data, `data` beside it."""
    channels, depth = request.param
    folder = tmp_path_factory.mktemp("stored")
    shutil.copytree(dataset, folder / "data")
    for path in (folder / "data").glob("*_img/*.png"):
        photo = np.resize(np.asarray(Image.open(path)), (HEIGHT, WIDTH, channels)).astype(np.float32) / 127.5 - 1
        save_image(from_unit_range(torch.from_numpy(photo).permute(2, 0, 1), depth), path)
        path.rename(path.with_suffix(image_ending(channels, depth)))
    config = make_config(folder / "run", images=2)
    data = replace(config.data, root=folder / "data", photo="stored")
    train(replace(config, data=data, stages={"global": config.stages["global"]}), console=Console(quiet=True))
    return folder / "run"


@pytest.fixture(scope="session")
def styled(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run after `hdgan styles encode` and `cluster`, which no test may change."""
    folder = tmp_path_factory.mktemp("styled") / "run"
    shutil.copytree(run, folder)
    assert main(["styles", "encode", str(folder), "--device", "cpu"]) == 0
    assert main(["styles", "cluster", str(folder), "--k", "3", "--min-area", "0.01"]) == 0
    return folder


@pytest.fixture
def shipped(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the only model that then comes with hdgan, `demo`: untrained, for 32x16 pixels of scenes of 64x32.

    The working directory and the cache are empty folders.
    """
    torch.manual_seed(0)
    data = DataConfig(scenes=ScenesConfig(width=64, height=32, train=3, test=2), workers=0)
    config = make_config(tmp_path / "run", data=data)
    config = replace(config, model=replace(config.model, n_labels=SPEC.n_labels))
    assert isinstance(config.model, Pix2PixHDConfig)
    file = tmp_path / "pretrained" / "demo" / MODEL_FILE
    training = {"train": to_plain(config), "stage": "joint", "step": 9}
    means = {CLASS_MEAN: torch.zeros(SPEC.n_labels, config.model.feature_channels)}
    save_model(file, Pix2PixHD(config.model), extra=training, tensors=means)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hdgan.checkpoints.PRETRAINED", tmp_path / "pretrained")
    return file


def command_line(config: TrainConfig) -> list[str]:
    """The options that turn the preset demo into this config."""

    def differences(prefix: str, ours: Mapping[str, Any], preset: Mapping[str, Any]) -> list[str]:
        found = []
        for key, value in ours.items():
            option = f"{prefix}{key.replace('_', '-')}"
            if isinstance(value, Mapping):
                found += differences(f"{option}.", value, preset[key])
            elif value != preset[key]:
                negated = f"--{prefix}no-{key.replace('_', '-')}"
                found += (
                    [f"--{option}" if value else negated] if isinstance(value, bool) else [f"--{option}", str(value)]
                )
        return found

    return ["demo", *differences("", to_plain(config), to_plain(PRESETS["demo"]()))]


@pytest.fixture(scope="session")
def to_arguments() -> Callable[[TrainConfig], list[str]]:
    return command_line


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium; tests with the marker `browser` run only where there is one."""
    path = find_chromium()
    assert path is not None
    return path


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start `hdgan` in a process of its own."""

    def popen(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hdgan", *arguments],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return popen


@pytest.fixture(scope="session")
def scorer(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorer that was trained shortly, which no test may change."""
    out = tmp_path_factory.mktemp("scorer") / "scorer.safetensors"
    data = DataConfig(root=dataset, workers=0)
    return train_scorer(data, 4, SizeConfig(), out, ScorerTraining(60, width=4), device="cpu")


@pytest.fixture
def label(dataset: Path) -> Path:
    return dataset / "test_label" / "s0_label.png"


@pytest.fixture
def ids(dataset: Path) -> Path:
    return dataset / "test_inst" / "s0_inst.tif"


@pytest.fixture
def photo(dataset: Path) -> Path:
    return dataset / "test_img" / "s0_img.png"


@pytest.fixture
def copied(styled: Path, tmp_path: Path) -> Path:
    """A copy of the run with styles, for a test that changes it."""
    return Path(shutil.copytree(styled, tmp_path / "copied"))


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """Make a table of instances by class; each image of 10x10 pixels has one instance."""

    def make(features: dict[int, list[list[float]]], area: int = 50) -> FeatureTable:
        label = np.array([of for of, rows in features.items() for _ in rows], np.int64)
        n = len(label)
        return FeatureTable(
            picture=np.arange(n, dtype=np.int32),
            id=label * 1000 + np.arange(n),
            label=label,
            area=np.full(n, area, np.int64),
            box=np.tile(np.array([1, 2, 6, 10], np.int32), (n, 1)),
            feature=np.array([row for rows in features.values() for row in rows], np.float32),
            stem=np.array([f"picture{k}" for k in range(n)]),
            size=np.full((n, 2), 10, np.int64),
            origin=Origin("0123456789abcdef", "step-1 of made"),
        )

    return make


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    """A hub on this machine without models, for this process and those that it starts; its cache is tmp_path/hf/hub.

    A token is known. The working directory is an empty folder.
    """
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as state:
        values = {
            "ENDPOINT": state.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{state.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        yield state
