"""Gradients are averaged in buckets, in one order, while the backward pass goes on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hdgan.sharding.world import World
from hdgan.training import gradient_average
from hdgan.training.gradient_average import GradientAverage

SHAPES = [(2, 3), (1,), (4, 1, 2), (2,)]


class Sent:
    """An all-reduce of two equal processes: what was sent is doubled, at the latest when somebody waits for it."""

    def __init__(self, log: list[int], values: Tensor) -> None:
        self.values = values
        log.append(len(values))

    def wait(self) -> None:
        self.values.mul_(2)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is sent."""
    log: list[int] = []
    monkeypatch.setattr(gradient_average.dist, "all_reduce", lambda values, async_op: Sent(log, values))
    return log


def make_parameters() -> list[Tensor]:
    """The last one gets no gradient, as dead biases."""
    return [torch.ones(shape, requires_grad=True) for shape in SHAPES]


def backward(parameters: list[Tensor], factor: float = 1.0) -> None:
    """Give each parameter but the last one the gradient factor * (its number + 1); the last of them comes first."""
    loss = torch.zeros(())
    for k, parameter in enumerate(parameters[:-1]):
        loss = loss + factor * (k + 1) * parameter.sum()
    loss.backward(inputs=parameters[:-1])


def test_alone_nothing_is_sent(sent: list[int]) -> None:
    parameters = make_parameters()
    average = GradientAverage(World(0, 1, torch.device("cpu")), parameters)
    with average.during_backward():
        backward(parameters)
    average.finish()
    assert not sent
    assert parameters[2].grad is not None
    assert parameters[2].grad.unique().tolist() == [3]


@pytest.mark.parametrize("bucket", [1, 5, 1000])
def test_gradients_are_averaged_in_buckets(sent: list[int], monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    monkeypatch.setattr(gradient_average, "BUCKET_ELEMENTS", bucket)
    parameters = make_parameters()
    average = GradientAverage(World(1, 2, torch.device("cpu")), parameters)
    for step in (1, 2):
        for parameter in parameters:
            parameter.grad = None
        with average.during_backward():
            backward(parameters, step)
        average.finish()
        for k, parameter in enumerate(parameters[:-1]):
            assert parameter.grad is not None
            assert parameter.grad.unique().tolist() == [step * (k + 1)]
        assert parameters[-1].grad is None
    assert sent == {1: [6, 1, 8, 2], 5: [6, 1, 8, 2], 1000: [17]}[bucket] * 2


def test_a_bucket_is_sent_once_it_and_all_before_it_are_complete(
    sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process has to send in the same order, whatever order its backward pass takes."""
    monkeypatch.setattr(gradient_average, "BUCKET_ELEMENTS", 1)
    parameters = make_parameters()
    average = GradientAverage(World(0, 2, torch.device("cpu")), parameters)
    lengths = []
    with average.during_backward():
        for k in (1, 0, 2):
            parameters[k].sum().backward()
            lengths.append(len(sent))
    assert lengths == [0, 2, 3]
    average.finish()
    assert sent == [6, 1, 8, 2]
    parameters[0].sum().backward()
    assert len(sent) == 4  # nothing listens outside of the context


def test_a_parameter_without_gradient_delays_only_the_first_step(sent: list[int]) -> None:
    parameters = make_parameters()
    average = GradientAverage(World(0, 2, torch.device("cpu")), parameters)
    for expected in (0, 2):
        with average.during_backward():
            backward(parameters)
            found = len(sent)
        average.finish()
        assert found == expected


def test_a_process_that_fails_sends_zeros_for_what_it_lacks(monkeypatch: pytest.MonkeyPatch, sent: list[int]) -> None:
    monkeypatch.setattr(gradient_average, "BUCKET_ELEMENTS", 1)
    parameters = make_parameters()
    average = GradientAverage(World(0, 2, torch.device("cpu")), parameters)
    with average.during_backward():
        parameters[0].sum().backward()  # and then its memory does not suffice
    average.finish()
    assert sent == [6, 1, 8, 2]
    assert [parameter.grad is None for parameter in parameters] == [False, True, True, True]
