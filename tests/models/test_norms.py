import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hdgan.models.norms import BatchNorm, InstanceNorm, make_norm

ACTIVATIONS = {"none": nn.Identity(), "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2)}


def gradients(norm, x, activation):
    x = x.clone().requires_grad_()
    y = norm(x, activation)
    (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("kind", "plain"), [("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d)])
def test_equals_pytorch(kind, plain, activation):
    norm, x = make_norm(kind, 3).double(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    plain = plain(3).double()
    found = gradients(norm, x, activation)
    expected = gradients(lambda x, name: ACTIVATIONS[name](plain(x)), x, activation)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key])


def test_batch_statistics_at_test_time():
    norm, x = BatchNorm(3), torch.randn(2, 3, 5, 4) * 7 + 3
    trained = norm(x)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    assert before["num_batches_tracked"] == 1
    tested = norm.eval()(x)
    assert torch.equal(tested, trained)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_one_picture_is_instance_norm_up_to_scale_and_shift():
    norm, x = BatchNorm(3), torch.randn(1, 3, 6, 5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        norm.bias.fill_(0.5)
    expected = F.relu(InstanceNorm()(x) * norm.weight.view(-1, 1, 1) + 0.5)
    torch.testing.assert_close(norm(x, "relu"), expected, rtol=1e-5, atol=1e-5)


def test_one_pixel_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm(2)(torch.ones(1, 2, 1, 1))


def test_only_batch_norm_has_parameters():
    assert list(make_norm("instance", 4).state_dict()) == []
    assert make_norm("batch", 4).weight.shape == (4,)
