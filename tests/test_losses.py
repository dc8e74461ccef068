import pytest
import torch
import torch.nn.functional as F

from hdgan.losses import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BalancedPerceptualLoss,
    PerceptualLoss,
    as_rgb,
    feature_matching_loss,
    fine_weights,
    gan_loss,
    l1_distance,
    r1_penalty,
)
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


@pytest.mark.parametrize("real", [True, False])
def test_hinge_stops_at_its_margin_for_d_alone(real):
    scores = outputs()
    sign = 1 if real else -1
    of_d = sum((1 - sign * scale[-1]).clamp(min=0).mean() for scale in scores)
    torch.testing.assert_close(gan_loss(scores, real, "hinge"), of_d)
    of_g = sum((-sign * scale[-1]).mean() for scale in scores)
    torch.testing.assert_close(gan_loss(scores, real, "hinge", of_generator=True), of_g)


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_other_losses_are_the_same_for_both_networks(mode):
    assert torch.equal(gan_loss(outputs(), True, mode), gan_loss(outputs(), True, mode, of_generator=True))


def test_r1_is_the_squared_gradient_per_score():
    """Against a linear D, whose gradient is known: the sum of its kernel over all patches that see a pixel."""
    kernel = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    image = torch.randn(4, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    fine, coarse = F.conv2d(image, kernel), F.conv2d(image, kernel, stride=2)
    gradients = [F.conv_transpose2d(torch.ones(1, 1, 5, 7).double(), kernel),
                 F.conv_transpose2d(torch.ones(1, 1, 3, 4).double(), kernel, stride=2)]  # fmt: skip
    expected = sum(g.square().sum() / n for g, n in zip(gradients, (5 * 7, 3 * 4), strict=True))
    torch.testing.assert_close(r1_penalty([[fine], [coarse]], image), expected.float())


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_perfect_scores_cost_nothing(mode):
    sure = 1.0 if mode == "lsgan" else 100.0
    assert gan_loss([[torch.full((1, 1, 3, 3), sure)]], True, mode) < 1e-6


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="gan_loss: expected mode lsgan, vanilla or hinge, got 'wgan'"):
        gan_loss([[torch.zeros(1, 1, 3, 3)]], True, "wgan")  # type: ignore[arg-type]


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
    first = PerceptualLoss(vgg, layer_weights=(2, 0, 0, 0, 0))(fake, real)
    assert first.item() == pytest.approx(2 * F.l1_loss(vgg(fake)[0], vgg(real)[0]).item(), rel=1e-5)


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


def test_relative_distances_do_not_depend_on_the_size_of_features():
    fake, real = (torch.rand(2, 3, 32, 48) for _ in range(2))
    weights = (3.0, 0.0, 0.0, 1.0, 2.0)
    loss = PerceptualLoss(FiveFeatures(1, 1), layer_weights=weights, relative=True)(fake, real)
    expected = 0.0
    for weight, a, b in zip(weights, five_features(fake), five_features(real), strict=True):
        expected += weight * ((a - b).abs().mean((1, 2, 3)) / b.abs().mean((1, 2, 3))).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_photo_without_a_feature_does_not_count_it():
    loss = PerceptualLoss(FiveFeatures(1, 1), relative=True)
    fake, real = torch.rand(2, 3, 32, 48).requires_grad_(), torch.rand(2, 3, 32, 48)
    real[0] = 0
    half = loss(fake, real)
    half.backward()
    torch.testing.assert_close(half, loss(fake[1:], real[1:]) / 2)
    assert fake.grad[0].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_keeps_its_numbers(dtype):
    """Against F.l1_loss in float32: gradients to the bit, and losses up to the order of their sums."""
    results = []
    for distance in (l1_distance, lambda x, target: F.l1_loss(x.float(), target.float())):
        torch.manual_seed(3)
        shapes = [(2, 4, 33, 17), (2, 8, 17, 9), (2, 8, 17, 9)]
        fake, real = ([torch.randn(shape).to(dtype).requires_grad_() for shape in shapes] for _ in range(2))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hdgan.losses.l1_distance", distance)
            loss = feature_matching_loss([fake], [[feature.detach() for feature in real]])
        results.append((loss, torch.autograd.grad(loss, fake[:-1])))
    (found, gradients), (expected, theirs) = results
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert all(torch.equal(*pair) for pair in zip(gradients, theirs, strict=True))


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


def five_features(image):
    """Stands for a network: every feature at half the resolution of the one before, and on another scale."""
    features = []
    for scale in (1.0, 10.0, 100.0, 0.1, 1.0):
        features.append(scale * torch.cat([image, image.square()], dim=1))
        image = F.avg_pool2d(image, 2)
    return features


class FiveFeatures(torch.nn.Linear):
    def forward(self, image):
        return five_features(image)


def balanced_loss():
    return BalancedPerceptualLoss(FiveFeatures(1, 1))


def test_balanced_terms_contribute_alike():
    images, real = torch.rand(2, 1, 3, 32, 48).requires_grad_(), torch.rand(2, 3, 32, 48)
    loss, distances = balanced_loss()(images, real)
    of_image = F.l1_loss(images[:, 0], real)
    torch.testing.assert_close(loss, 6 * of_image)
    expected = [of_image] + [
        F.l1_loss(a, b) for a, b in zip(five_features(images[:, 0]), five_features(real), strict=True)
    ]
    torch.testing.assert_close(distances, torch.stack(expected).detach())
    assert not distances.requires_grad


def test_balance_is_of_each_picture_and_constant():
    images, real = torch.rand(2, 1, 3, 32, 48).requires_grad_(), torch.rand(2, 3, 32, 48)
    expected = 0.0
    for image, goal in zip(images[:, 0], real, strict=True):
        terms = [F.l1_loss(image, goal)] + [
            F.l1_loss(a, b) for a, b in zip(five_features(image[None]), five_features(goal[None]), strict=True)
        ]
        expected = expected + sum(terms[0].item() / term.item() * term for term in terms) / 2
    loss, _ = balanced_loss()(images, real)
    torch.testing.assert_close(torch.autograd.grad(loss, images), torch.autograd.grad(expected, images))


def test_division_of_a_batch_changes_nothing():
    images, real = torch.rand(2, 1, 3, 32, 48).requires_grad_(), torch.rand(2, 3, 32, 48)
    whole, _ = balanced_loss()(images, real)
    halves = [balanced_loss()(images[i : i + 1], real[i : i + 1])[0] / 2 for i in range(2)]
    torch.testing.assert_close(torch.autograd.grad(whole, images), torch.autograd.grad(sum(halves), images))


def test_masks_of_one_image_sum_to_the_plain_loss():
    images, real = torch.rand(2, 1, 3, 32, 48), torch.rand(2, 3, 32, 48)
    masks = F.one_hot(torch.randint(4, (2, 32, 48)), 4).movedim(3, 1).float()
    expected = balanced_loss()(images, real)
    torch.testing.assert_close(balanced_loss()(images, real, masks), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(balanced_loss()(images, real, masks), expected)


def test_each_class_chooses_its_best_image():
    real = torch.zeros(1, 3, 32, 32)
    left = (torch.arange(32) < 16).float().expand(1, 1, 32, 32)
    masks = torch.cat([left, 1 - left], dim=1)
    # The first image is right on the left half, the second on the right half, the third nowhere.
    images = torch.stack([0.5 * (1 - left), 0.8 * left, torch.ones_like(left)], dim=1).expand(-1, -1, 3, -1, -1)
    images = images.clone().requires_grad_()
    loss, distances = balanced_loss()(images, real, masks)
    torch.testing.assert_close(distances[0], torch.tensor((0.25 + 0.4 + 1) / 3))
    mean = 6 * distances[0]  # all terms count as much as the image: so do the means of the three
    assert loss.item() == pytest.approx(0.001 * mean.item(), rel=1e-4)

    images = (images.detach() + 0.1).requires_grad_()
    loss, _ = balanced_loss()(images, real, masks)
    (gradient,) = torch.autograd.grad(loss, images)
    size = gradient.abs().sum((2, 3))[0]  # [K, W]
    assert size[0, :16].mean() > 100 * size[0, 16:].mean()
    assert size[1, 16:].mean() > 100 * size[1, :16].mean()
    assert (size[2] > 0).all()
    assert size[2].mean() < 0.01 * size[0, :16].mean()


def test_without_classes_whole_images_compete():
    real = torch.zeros(1, 3, 32, 32)
    images = torch.stack([torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.9)], dim=1).requires_grad_()
    loss, _ = balanced_loss()(images, real)
    (gradient,) = torch.autograd.grad(loss, images)
    assert gradient[0, 0].abs().sum() > 100 * gradient[0, 1].abs().sum() > 0


def test_equal_images_and_dead_features_are_finite():
    real = torch.rand(1, 3, 32, 32)
    images = real[:, None].clone().requires_grad_()
    loss, _ = balanced_loss()(images, real)
    loss.backward()
    assert loss.item() == 0
    assert images.grad.isfinite().all()

    class Dead(torch.nn.Linear):
        def forward(self, image):
            return [0 * feature for feature in five_features(image)]

    images = torch.rand(1, 1, 3, 32, 32).requires_grad_()
    loss, distances = BalancedPerceptualLoss(Dead(1, 1))(images, real)
    loss.backward()
    assert loss.item() == pytest.approx(distances[0].item(), rel=1e-5)
    assert images.grad.isfinite().all()
    assert distances[1:].eq(0).all()


def test_rgb_images_stay_the_same_object():
    image = torch.rand(2, 3, 4, 5)
    assert as_rgb(image) is image


def test_grey_is_repeated_for_networks_that_take_rgb():
    image = torch.rand(2, 1, 4, 5)
    assert torch.equal(as_rgb(image), torch.cat([image] * 3, dim=1))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_images_of_other_channels_are_no_rgb(channels):
    with pytest.raises(ValueError, match=f"expected images of 1 or 3 channels, got {channels}"):
        as_rgb(torch.zeros(1, channels, 4, 5))


def test_the_perceptual_loss_of_grey_images_is_that_of_their_rgb():
    torch.manual_seed(0)
    loss = PerceptualLoss(VGG19Features().eval())
    fake, real = (torch.rand(1, 1, 32, 32) * 2 - 1 for _ in range(2))
    assert torch.equal(loss(fake, real), loss(torch.cat([fake] * 3, 1), torch.cat([real] * 3, 1)))


@pytest.mark.parametrize(
    ("n", "weights"), [(1, (0.25,)), (2, (0.5, 0.25)), (3, (1, 0.5, 0.25)), (6, (1, 1, 1, 1, 0.5, 0.25))]
)
def test_there_are_as_many_weights_as_features(n: int, weights: tuple[float, ...]) -> None:
    assert fine_weights(n) == weights
