"""The example of the ops: they compute what the network computes, by hand and by `accelerate`."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch


def test_the_ops_compute_the_same(example: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    module = example("ops_in_your_network")
    module.main(size=40, device="cpu", seconds=0.01)
    printed = capsys.readouterr().out
    rows = re.findall(r"^(.*?)  +error of outputs (\S+), of gradients (\S+); (\S+) ms$", printed, re.MULTILINE)
    assert [name for name, *_ in rows] == ["theirs", "with ops", "accelerated"]
    for _, outputs, gradients, milliseconds in rows:
        assert 0 < float(outputs) < 1e-5
        assert 0 < float(gradients) < 1e-3
        assert float(milliseconds) > 0
    assert "Theirs: 5 replacements, 0 kept" in printed
    assert "instance-wise average pooling of model" in printed


def test_the_ops_agree_in_float64(example: Callable[[str], Any]) -> None:
    module = example("ops_in_your_network")
    torch.manual_seed(0)
    network, maps = module.Theirs().double(), module.squares(40, "cpu")
    found = module.forward_backward(lambda *maps: module.with_ops(network, *maps), network, maps)
    expected = module.forward_backward(copied := deepcopy(network), copied, maps)
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-10
