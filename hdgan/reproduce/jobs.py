"""The jobs of `hdgan reproduce`: which files belong to each, and which ordinary commands do it.

OUT/scale.json                      the scale of all runs
OUT/network.json                    the network of their perceptual loss
    networks/scorer.safetensors     recognises classes in images, for the scores
    networks/perceptual.safetensors provides the features of the perceptual loss, unless another network does
    networks/*.json                 how long their training took
    runs/ROW-SEED/                  an ordinary training run, with three additions:
    runs/ROW-SEED/evaluation/       what `hdgan evaluate` wrote about it
    runs/ROW-SEED/record.json       how long it took, and which perceptual network it trains with
    runs/ROW-SEED/result.json       its scores, with the digests of what they depend on
    logs/                           what the processes of each job printed
    results.csv                     the rows of the page
    evidence/                       these rows, images, and copies of the networks, as in the folder of --docs
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.checkpoints import list_steps
from hdgan.config.options import option
from hdgan.config.serialization import flattened, from_plain, to_plain
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.registry import PRESETS, AnyTrainConfig
from hdgan.files.json import read_json, write_json
from hdgan.reproduce.perceptual import TWIN_NETWORK, PerceptualNetwork
from hdgan.reproduce.plan import NETWORKS, PERCEPTUAL, ROWS, SCORER, Options, training_options, typed
from hdgan.reproduce.record import Machine, digest, load_record
from hdgan.reproduce.results import Result, load_results
from hdgan.reproduce.scales import Scale
from hdgan.scenes import scenes_folder
from hdgan.training.logs import last_record
from hdgan.training.run_folder import CONFIG_FILE

OF_MACHINE = {"out", "device", "threads", "log.to"}
"""Options in which a run may differ from its row."""


@dataclass(frozen=True)
class Folder:
    """The folder of all jobs."""

    root: Path
    scale: Scale
    loss_network: PerceptualNetwork = TWIN_NETWORK

    def network(self, name: str) -> Path:
        return self.root / "networks" / f"{name}.safetensors"

    def digest(self, name: str) -> str:
        """The digest of a network's file."""
        return digest(self.network(name).read_bytes())

    @property
    def perceptual(self) -> str:
        """The digest of the network of the perceptual loss."""
        return self.digest(PERCEPTUAL) if self.loss_network.is_twin else self.loss_network.digest

    @property
    def network_options(self) -> Options:
        """The options of `hdgan train` that choose the network of the perceptual loss."""
        return {"loss.network": self.network(PERCEPTUAL)} if self.loss_network.is_twin else self.loss_network.options

    def claim(self) -> None:
        """Keep the folder to its scale and its network.

        Raises:
            ConfigError: it holds runs of another scale, or with another network.
            CheckpointError: the file of the scale or the network is damaged.
        """
        self.require_claimable()
        write_json(self.root / "scale.json", self.scale)
        write_json(self.root / "network.json", _Chosen(self.loss_network.name, self.loss_network.digest))

    def require_claimable(self) -> None:
        """Raise what `claim` raises, and write nothing."""
        self._require_scale()
        self._require_network()

    def _require_scale(self) -> None:
        file, scale = self.root / "scale.json", to_plain(self.scale)
        found = read_json(file, dict[str, Any], f"choose another {option('out')}") if file.exists() else scale
        if found != scale:
            name = found.get("name")
            other = "another version of it" if name == self.scale.name else f"size {name}"
            raise ConfigError(
                f"{self.root} contains runs of {other}, not of size {self.scale.name}: choose another {option('out')}"
            )

    def _require_network(self) -> None:
        file, ours = self.root / "network.json", self.loss_network
        if not file.exists():
            return
        found = read_json(file, _Chosen, f"choose another {option('out')}")
        theirs = PerceptualNetwork(found.name, found.digest)
        if theirs != ours:
            raise ConfigError(
                f"{self.root} contains runs whose perceptual network is {theirs}, not {ours}: give the same "
                f"{option('network')}, or choose another {option('out')}"
            )


@dataclass(frozen=True)
class _Chosen:
    """The network of a folder's perceptual loss, as network.json holds it."""

    name: str
    digest: str


@dataclass(frozen=True)
class Job:
    """The training of a network, or the training and scoring of the run of a row."""

    folder: Folder
    name: str
    seed: int

    def __str__(self) -> str:
        return self.name if self.is_network else f"{self.name}, seed {self.seed}"

    @property
    def is_network(self) -> bool:
        return self.name in NETWORKS

    @property
    def run(self) -> Path:
        return self.folder.root / "runs" / f"{self.name}-{self.seed}"

    @property
    def evaluation(self) -> Path:
        return self.run / "evaluation"

    @property
    def result(self) -> Path:
        return self.run / "result.json"

    @property
    def record(self) -> Path:
        return self.folder.network(self.name).with_suffix(".json") if self.is_network else self.run / "record.json"

    @property
    def log(self) -> Path:
        return self.folder.root / "logs" / f"{self.name}-{self.seed}.txt"

    @property
    def options(self) -> Options:
        """What the training of the run adds to its preset."""
        folder = self.folder
        network, n_features = folder.network_options, folder.loss_network.n_features
        return training_options(folder.scale, self.name, self.seed, network, n_features)

    @property
    def digest_of_options(self) -> str:
        """The digest of the preset and the options, without paths and machine, which says what the row trains."""
        trained = {place: value for place, value in self.options.items() if not isinstance(value, Path)}
        return digest(" ".join([ROWS[self.name].preset, *typed(trained)]).encode())

    @property
    def compares_features(self) -> bool:
        """Whether the run has a perceptual loss."""
        return not self.is_network and ROWS[self.name].perceptual is not None

    @property
    def perceptual(self) -> str:
        """Digest of the network that the run's perceptual loss uses; empty without that loss."""
        return self.folder.perceptual if self.compares_features else ""

    def _planned_perceptual(self) -> str:
        """`perceptual`, or words for a network that has yet to be trained."""
        is_there = not self.compares_features or not self.folder.loss_network.is_twin
        return self.perceptual if is_there or self.folder.network(PERCEPTUAL).is_file() else "one that is trained first"

    def results(self) -> list[Result]:
        """The scores of real photos and of the run; nothing without scores by this scorer and version of hdgan."""
        return load_results(self.result, self.folder.digest(SCORER)) if self.folder.network(SCORER).is_file() else []

    def is_done(self) -> bool:
        return self.folder.network(self.name).is_file() if self.is_network else bool(self.results())

    def is_trained(self) -> bool:
        """Whether the last checkpoint of the run is the last of its training."""
        return list_steps(self.run)[-1:] == [self.folder.scale.steps]

    def share(self) -> float:
        """The completed part of a run's training, from 0 to 1, according to its log; 0 for a network."""
        record = last_record(self.run)
        return record["step"] / self.folder.scale.steps if record else 0.0

    def require_same(self) -> None:
        """Check that a run that was begun has the options of its row and the perceptual network of this folder.

        Raises:
            ConfigError: it has others.
            CheckpointError: its files are damaged.
        """
        remedy = f"delete that folder to train the run again, or choose another {option('out')}"
        record = load_record(self.record)
        if record and (perceptual := self._planned_perceptual()) != record.perceptual:
            raise ConfigError(
                f"{self.run} was trained with the perceptual network {record.perceptual}, not with {perceptual}: "
                f"{remedy}"
            )
        if not list_steps(self.run):
            return
        found = _by_place(read_json(self.run / CONFIG_FILE, AnyTrainConfig, remedy))
        # The network is compared above: its file may have been moved.
        elsewhere = OF_MACHINE | self.folder.network_options.keys()
        for place, value in self._planned_config().items():
            if place not in elsewhere and found.get(place) != value:
                raise ConfigError(
                    f"{self.run} was trained with {place} {found.get(place)} instead of {value}, by hand or by another "
                    f"version of hdgan: {remedy}"
                )

    def _planned_config(self) -> dict[str, Any]:
        """What a run's config.json should hold, by the dotted names of its options."""
        config = to_plain(PRESETS[ROWS[self.name].preset]())
        for place, value in self.options.items():
            config = _changed(config, place, to_plain(value))
        return _by_place(from_plain(AnyTrainConfig, config, str(self)))

    def commands(self, machine: Machine, device: str) -> list[list[str]]:
        """The remaining work, as arguments of `hdgan`."""
        return (
            [self._scorer_training(device)]
            if self.is_network
            else [*self._training(machine, device), self._scoring(device)]
        )

    def _scorer_training(self, device: str) -> list[str]:
        scale = self.folder.scale
        options = {
            "scorer": self.folder.network(self.name),
            "root": scenes_folder(scale.scenes),
            "width": scale.width,
            "height": scale.height,
            "scorer_training.steps": scale.network_steps,
            "scorer_training.seed": self.seed,
            "device": device,
        }
        return ["evaluate", "--train-scorer", *typed(options)]

    def _training(self, machine: Machine, device: str) -> list[list[str]]:
        options = self.options | {"device": device, "threads": machine.threads}
        if self.is_trained():
            return []
        if not list_steps(self.run):
            return [["train", ROWS[self.name].preset, "--out", str(self.run), *typed(options)]]
        changed = {place: options[place] for place in ("device", "threads")}
        changed |= self.folder.network_options if self.compares_features else {}
        return [["train", "--resume", str(self.run), *typed(changed)]]

    def _scoring(self, device: str) -> list[str]:
        options = {"scorer": self.folder.network(SCORER), "out": self.evaluation, "device": device}
        return ["evaluate", str(self.run), *typed(options)]


def _changed(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A config in which the option with a dotted name has this value."""
    name, dot, rest = place.partition(".")
    return config | {name: _changed(config[name] or {}, rest, value) if dot else value}


def _by_place(config: TrainConfig) -> dict[str, Any]:
    """The values of all options by their dotted names."""
    return {".".join(path): value for path, value in flattened(to_plain(config)).items()}
