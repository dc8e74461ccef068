import pytest
import torch
import torch.nn.functional as F

from hdgan.losses import IMAGENET_MEAN, IMAGENET_STD, PerceptualLoss, feature_matching_loss, gan_loss, l1_distance
from hdgan.models import MultiscaleDiscriminator, VGG19Features
from hdgan.training.memory import saved_bytes


def outputs(n_scales=2, n_features=3, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(2, 4, 8 // 2**i, 8, generator=generator).to(dtype) for _ in range(n_features)]
        + [torch.randn(2, 1, 5, 4, generator=generator).to(dtype)]
        for i in range(n_scales)
    ]


@pytest.mark.parametrize("real", [True, False])
def test_lsgan_is_the_squared_distance_summed_over_scales(real):
    scores = outputs()
    expected = sum(((scale[-1] - float(real)) ** 2).mean() for scale in scores)
    torch.testing.assert_close(gan_loss(scores, real), expected)


@pytest.mark.parametrize("real", [True, False])
def test_vanilla_is_the_cross_entropy_of_logits(real):
    scores = outputs()
    probabilities = [torch.sigmoid(scale[-1].double()) for scale in scores]
    expected = -sum((p if real else 1 - p).log().mean() for p in probabilities)
    torch.testing.assert_close(gan_loss(scores, real, "vanilla").double(), expected, rtol=1e-5, atol=1e-6)


def test_vanilla_survives_extreme_scores():
    scores = [[torch.tensor([[[[-1e4, 1e4]]]], requires_grad=True)]]
    loss = gan_loss(scores, True, "vanilla")
    loss.backward()
    assert loss.isfinite()
    assert scores[0][0].grad.isfinite().all()


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_perfect_scores_cost_nothing(mode):
    sure = 1.0 if mode == "lsgan" else 100.0
    assert gan_loss([[torch.full((1, 1, 3, 3), sure)]], True, mode) < 1e-6


def test_gan_gradient():
    score = torch.randn(1, 1, 3, 2, requires_grad=True)
    gan_loss([[score]], True).backward()
    torch.testing.assert_close(score.grad, 2 * (score.detach() - 1) / 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32(dtype):
    fake, real = outputs(dtype=dtype), outputs(dtype=dtype, seed=1)
    exact = outputs(dtype=dtype), outputs(dtype=dtype, seed=1)
    assert gan_loss(fake, True).dtype == torch.float32
    assert feature_matching_loss(fake, real).dtype == torch.float32
    as_float = [[[t.float() for t in scale] for scale in o] for o in exact]
    torch.testing.assert_close(feature_matching_loss(fake, real), feature_matching_loss(*as_float))


@pytest.mark.parametrize("n_scales", [1, 3])
@pytest.mark.parametrize("n_layers", [2, 3])
def test_feature_matching_weights(n_scales, n_layers):
    """4 / (n_layers + 1) for each layer, 1 / num_D for each scale, the score left out."""
    fake, real = outputs(n_scales, n_layers + 1), outputs(n_scales, n_layers + 1, seed=1)
    expected = 0.0
    for fake_scale, real_scale in zip(fake, real, strict=True):
        for a, b in zip(fake_scale[:-1], real_scale[:-1], strict=True):
            expected += 4 / (n_layers + 1) / n_scales * (a - b).abs().mean().item()
    assert feature_matching_loss(fake, real).item() == pytest.approx(expected, rel=1e-5)


def test_feature_matching_ignores_the_scores():
    fake, real = outputs(), outputs(seed=1)
    before = feature_matching_loss(fake, real)
    fake[0][-1] += 100
    assert torch.equal(feature_matching_loss(fake, real), before)


def test_feature_matching_gives_no_gradient_to_real():
    network = MultiscaleDiscriminator(3, 2, 2, 2)
    fake = torch.randn(1, 3, 16, 16, requires_grad=True)
    real = torch.randn(1, 3, 16, 16, requires_grad=True)
    feature_matching_loss(network(fake), network(real)).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None


def test_feature_matching_of_different_discriminators():
    with pytest.raises(ValueError, match="shorter"):
        feature_matching_loss(outputs(2), outputs(1))


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return VGG19Features().eval()


def images():
    torch.manual_seed(1)
    return torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1


def test_vgg_weights_and_raw_images(vgg):
    fake, real = images()
    expected = 0.0
    for weight, a, b in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), vgg(fake), vgg(real), strict=True):
        expected += weight * F.l1_loss(a, b).item()
    assert PerceptualLoss(vgg)(fake, real).item() == pytest.approx(expected, rel=1e-5)


def test_vgg_with_imagenet_normalisation(vgg):
    fake, real = images()
    mean, std = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    expected = PerceptualLoss(vgg)(*(((x + 1) / 2 - mean) / std for x in (fake, real)))
    torch.testing.assert_close(PerceptualLoss(vgg, imagenet_normalisation=True)(fake, real), expected)


def test_vgg_gradients_flow_to_the_fake_alone(vgg):
    fake, real = (x.requires_grad_() for x in images())
    loss = PerceptualLoss(vgg)
    loss(fake, real).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_vgg_loss_of_equal_images_is_zero(vgg):
    fake, _ = images()
    assert PerceptualLoss(vgg)(fake, fake).item() == 0


def test_l1_distance_and_its_gradients() -> None:
    x, target = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, 5, requires_grad=True)
    ours, theirs = l1_distance(x, target), F.l1_loss(x, target.detach())
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(3 * ours, x), torch.autograd.grad(3 * theirs, x))
    torch.testing.assert_close(torch.func.grad(l1_distance)(x.detach(), target), torch.sign(x - target).detach() / 30)
    assert not l1_distance(x.detach(), target).requires_grad
    assert l1_distance(x.bfloat16(), target).dtype == torch.float32
    assert saved_bytes(lambda: l1_distance(x, target)) == x.numel()


def test_l1_distance_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"expected a target of shape \(3, 1\), got \(3, 4\)"):
        l1_distance(torch.zeros(3, 1), torch.zeros(3, 4))
