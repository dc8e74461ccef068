import gc

import torch
from torch import nn

from hdgan.training.memory import MemoryMeter, held_after


def test_counts_what_a_backward_pass_needs():
    layer = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 4))
    x = torch.randn(10, 8)
    held = held_after(lambda: layer(x), layer)
    sigmoid, result = 10 * 16 * 4, 10 * 4 * 4
    assert held.total == sigmoid + result
    assert held.by_module == {"1": sigmoid, "2": result}
    assert held.result.shape == (10, 4)


def test_peak_and_what_is_freed():
    with MemoryMeter() as meter:
        a = torch.zeros(100)
        b = a + 1
        assert meter.now == meter.peak == 800
        del a
        view = b[:10]
        assert meter.now == 400
        del b
        assert meter.now == 400
        del view
        gc.collect()
        assert meter.now == 0
    assert meter.peak == 800
    assert not meter.by_module()


def test_what_lives_on_after_the_context_is_forgotten_when_it_goes():
    with MemoryMeter() as meter:
        a = torch.zeros(100)
    torch.zeros(1000)
    assert meter.now == 400
    del a
    assert meter.now == 0


def test_modules_that_fail_leave_no_hooks():
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError

    model = nn.Sequential(nn.Identity(), Fails())
    try:
        held_after(lambda: model(torch.zeros(1)), model)
    except KeyError:
        pass
    else:
        raise AssertionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
