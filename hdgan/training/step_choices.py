"""What `auto` means for the steps of a stage: whether they recompute, and whether a CUDA graph replays them.

Both only change how fast a step is and what memory it needs. They are decided before training, for each stage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hdgan.devices import available_memory
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import AnyRun
from hdgan.sharding.world import World
from hdgan.training.cuda_graph import graph_obstacle
from hdgan.training.estimate import estimate_stage, sizes_of
from hdgan.training.schedule import Stage
from hdgan.training.setup import RunSetup
from hdgan.wording import memory_size

MARGIN = 1.25
"""Assumed ratio of what a step takes to what its tensors take: workspaces of libraries, and gaps of the allocator."""
SHARE_OF_CPU = 0.5
"""Share of the available main memory that a run may take without recomputing; data workers and other programs use it
as well."""


@dataclass(frozen=True)
class StepChoices:
    """How the steps of a stage run."""

    recompute: bool
    why_recompute: str
    cuda_graphs: bool
    why_cuda_graphs: str

    def applied(self, config: AnyRun) -> AnyRun:
        """The config with these choices; CUDA graphs that are possible stay `auto` if nobody asked for them."""
        return replace(config, recompute=self.recompute, cuda_graphs=self.cuda_graphs and config.cuda_graphs)

    def __str__(self) -> str:
        recompute, graphs = ("on" if chosen else "off" for chosen in (self.recompute, self.cuda_graphs))
        return f"recompute {recompute} ({self.why_recompute}); CUDA graphs {graphs} ({self.why_cuda_graphs})"


def choose_steps(run: RunSetup, done: int) -> dict[str, StepChoices]:
    """How the steps of each stage run that is not finished, by the name of the stage.

    Args:
        run: its setup.
        done: steps of the run that have been taken.
    """
    left = [stage for stage in run.stages if stage.last_step > done]
    return {stage.name: StepChoices(*_recompute(run, stage), *_cuda_graphs(run, stage)) for stage in left}


def _recompute(run: RunSetup, stage: Stage) -> tuple[bool, str]:
    config, world = run.config, run.world
    if config.recompute != "auto":
        return config.recompute, "as requested"
    budget = _budget(world)
    if budget is None:
        return True, f"the free memory of {world.device} is not known"
    without = replace(config, recompute=False)
    try:
        estimate = estimate_stage(without, stage, run.data, run.perceptual, stage.first_step, world.size)
    except ConfigError as error:
        return True, str(error)
    needed = MARGIN * estimate.peak_bytes
    needs = f"without it, a step needs about {memory_size(needed)}"
    if needed > budget:
        return True, f"{needs}, more than the {memory_size(budget)} that it may take"
    return False, f"{needs} of the {memory_size(budget)} that it may take"


def _budget(world: World) -> float | None:
    """Bytes that a process may take for its steps without recomputing; None if unknown."""
    available = available_memory(world.device)
    if available is None or world.device.type == "cuda":
        return available
    return SHARE_OF_CPU * available / world.size


def _cuda_graphs(run: RunSetup, stage: Stage) -> tuple[bool, str]:
    config = run.config
    if config.cuda_graphs != "auto":
        return config.cuda_graphs, "as requested"
    obstacle = graph_obstacle(config, stage, run.world.device)
    if not obstacle and len(sizes_of(stage, run.data)) > 1:
        obstacle = "the images differ in size"
    return not obstacle, obstacle or "possible"
