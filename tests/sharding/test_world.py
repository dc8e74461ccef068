"""Several processes on one machine: who computes where, who does what, and how they end together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch

from hdgan.errors import ConfigError
from hdgan.sharding import world as sharding
from hdgan.sharding.environment import ProcessPlace
from hdgan.sharding.rendezvous import Rendezvous
from hdgan.sharding.world import World, join_shards, join_world
from tests.sharding.several import end_all, environments, start_all


def test_alone_nothing_is_averaged() -> None:
    world = World(0, 1, torch.device("cpu"))
    world.barrier()
    assert world.is_main
    assert world.mean(torch.ones(2)).tolist() == [1, 1]
    assert world.any(True, False) == [True, False]


def test_a_device_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a device"), join_world("toaster"):
        pass
    with pytest.raises(ConfigError, match="needs CUDA device 99"), join_world("cuda:99"):
        pass


def test_one_gpu_for_all_processes_is_refused() -> None:
    with pytest.raises(ConfigError, match="device cuda:0 would put all 2 processes on one device"):
        sharding._device_of("cuda:0", ProcessPlace(0, 2, 0, 2))


def test_more_processes_than_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    message = (
        r"there are 8 processes on this machine, but PyTorch sees 4 GPUs: give torchrun --nproc-per-node 4, or .*cpu$"
    )
    with pytest.raises(ConfigError, match=message):
        sharding._device_of("auto", ProcessPlace(1, 8, 1, 8))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert sharding._device_of("auto", ProcessPlace(5, 8, 5, 8)) == "cuda:5"
    assert sharding._device_of("cpu", ProcessPlace(5, 8, 5, 8)) == "cpu"


def test_one_gpu_a_process_is_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one visible GPU each process may have its own, or all may share one by mistake."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"sees 1 GPU: .*; if each process sees only its own GPU, use device cuda:0"):
        sharding._device_of("auto", ProcessPlace(0, 2, 0, 2))
    assert sharding._device_of("cuda:0", ProcessPlace(1, 2, 1, 2)) == "cuda:0"
    with pytest.raises(ConfigError, match="device cuda:1 would put all"):
        sharding._device_of("cuda:1", ProcessPlace(1, 2, 1, 2))
    assert sharding._device_of("auto", ProcessPlace(1, 2, 0, 1)) == "cuda:0"  # one process on each of two machines


def test_processes_wait_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    for name, value in environments(2)[0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Rendezvous, "join", lambda rank, size: Rendezvous(rank, size))
    monkeypatch.setattr(sharding.dist, "init_process_group", lambda *_, timeout, **__: given.append(timeout))
    monkeypatch.setattr(sharding.dist, "destroy_process_group", lambda: None)
    with join_world("cpu") as world:
        assert world.size == 2
    assert given == [sharding.TIMEOUT]
    assert timedelta(hours=1) <= sharding.TIMEOUT


def test_gpus_average_by_nccl_and_the_host_talks_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the processes tell each other about failures without waiting for a GPU."""
    gpu, given = torch.device("cuda", 1), {}

    def init_process_group(backend: str, *, device_id: torch.device, **_: object) -> None:
        given.update(backend=backend, device=device_id)

    for name, value in environments(2)[0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Rendezvous, "join", lambda rank, size: Rendezvous(rank, size))
    monkeypatch.setattr(sharding, "_device_of", lambda *_: "cuda:1")
    monkeypatch.setattr(sharding, "choose_device", torch.device)
    monkeypatch.setattr(sharding, "_make_current", lambda device: device)
    monkeypatch.setattr(sharding.dist, "init_process_group", init_process_group)
    monkeypatch.setattr(sharding.dist, "destroy_process_group", lambda: None)
    with join_world("auto") as world:
        assert world.device == gpu
    assert given == {"backend": "cpu:gloo,cuda:nccl", "device": gpu}


THREADS_THAT_ARE_LEFT = """
import os, sys, torch
from hdgan.sharding.world import join_world
for turn in range(2):  # a program may train twice
    with join_world("cpu") as world:
        world.mean(torch.ones(1))
        assert world.all_gather(turn) == world.rendezvous.all_gather(turn) == [turn] * 2
        import torch.distributed.nn  # as PyTorch's compiler does
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
sys.exit("gloo" in " ".join(names))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_no_thread_of_the_backend_outlives_training() -> None:
    """A thread that is left can abort the process while Python shuts down."""
    codes, outputs = end_all(start_all(2, ["-c", THREADS_THAT_ARE_LEFT]))
    assert codes == [0, 0], outputs


@pytest.mark.parametrize(("local_rank", "order"), [(0, ["work", "wait"]), (1, ["wait", "work"])])
def test_one_process_of_a_node_goes_first(monkeypatch: pytest.MonkeyPatch, local_rank: int, order: list[str]) -> None:
    done: list[str] = []
    monkeypatch.setattr(Rendezvous, "all_gather", lambda self, value: done.append("wait"))
    with World(local_rank, 2, torch.device("cpu"), local_rank).local_main_first():
        done.append("work")
    assert done == order


SHARED = """
import sys, torch
from hdgan.sharding.world import join_shards
with join_shards() as world:
    for total, block in ((0, 1), (1, 4), (2, 1), (7, 2), (12, 2), (13, 100)):
        items = [f"item {k}" for k in range(total)]
        own = ((item, world.rank) for item in world.share(items))
        found = list(world.in_order(own, total, block))
        assert found == [(item, k % world.size) for k, item in enumerate(items)], (total, block, found)
    [tensor] = {tuple(one.tolist()) for one in world.all_gather(torch.arange(3))}
    assert tensor == (0, 1, 2)
    assert world.from_main(lambda: f"of {world.rank}") == "of 0"
print("ended")
"""


@pytest.mark.slow
def test_processes_share_items_and_join_the_results_in_their_order() -> None:
    codes, outputs = end_all(start_all(3, ["-c", SHARED]))
    assert codes == [0, 0, 0], outputs
    assert outputs == ["ended\n"] * 3


def test_one_process_has_all_items() -> None:
    with join_shards("cpu") as world:
        own = world.share(range(5))
        assert list(world.in_order((2 * item for item in own), 5)) == [0, 2, 4, 6, 8]
        assert world.all_gather("a") == ["a"]
        assert world.from_main(lambda: "b") == "b"
