"""What D sees, and what it teaches G, with augmentation: against D called for dense, transformed inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hdgan.families import (
    DiscriminatorConfig,
    GeneratorConfig,
    PatchConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    UNetConfig,
    build_model,
)
from hdgan.families.common.adversarial import AdversarialModel, adversarial_objectives, run_discriminator
from hdgan.families.common.augmentation import Augmentation, AugmentConfig, Transform
from hdgan.families.common.pool import FakePool
from hdgan.losses import Outputs, gan_loss
from hdgan.models.inputs import LabelInput, NetworkInput

ALL = AugmentConfig(policy=("color", "translation", "cutout"), adaptive=True, probability=0.8)
HD: dict[str, Any] = {
    "generator": GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1),
    "discriminator": DiscriminatorConfig(ndf=4, n_layers=2),
}
UNET, PATCH = UNetConfig(ngf=4, n_downs=2, dropout_levels=()), PatchConfig(ndf=4)
MODELS = {
    "pix2pixHD of labels": Pix2PixHDConfig(n_labels=4, **HD),
    "pix2pixHD, A->B": Pix2PixHDConfig(n_labels=0, input_channels=2, **HD),
    "pix2pix, 5 channels": Pix2PixConfig(
        n_labels=4, image_channels=5, instances=False, norm="instance", generator=UNET, discriminator=PATCH
    ),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model(request: pytest.FixtureRequest) -> AdversarialModel:
    torch.manual_seed(0)
    model = build_model(request.param)
    assert isinstance(model, AdversarialModel)
    for parameter in model.parameters():
        parameter.data.mul_(5)  # of the size that trained weights have
    return model


def inputs(model: AdversarialModel, seed: int = 0, batch: int = 3) -> tuple[NetworkInput, Tensor]:
    """A condition and photos of it."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (batch, 8, 12), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    source = None if model.config.n_labels else torch.rand(batch, 2, 32, 48, generator=generator) * 2 - 1
    photo = torch.rand(batch, model.config.image_channels, 32, 48, generator=generator) * 2 - 1
    return model.condition(label if source is None else None, label, source), photo


def plainly(model: AdversarialModel, transform: Transform, condition: NetworkInput, image: Tensor) -> Outputs:
    """D of the dense planes and the image, both transformed."""
    dense = condition.dense() if isinstance(condition, LabelInput) else condition
    transformed = transform.condition(dense)
    assert isinstance(transformed, Tensor)
    assert model.discriminator is not None
    return model.discriminator(torch.cat([transformed, transform.image(image)], dim=1))


def assert_same(found: Outputs, expected: Outputs) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for feature, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(feature, other, rtol=1e-4, atol=1e-4)


def test_condition_photo_and_fake_are_seen_through_one_transform(model: AdversarialModel) -> None:
    condition, photo = inputs(model)
    fake, augmentation = model.generate(condition), Augmentation(ALL)
    torch.manual_seed(1)
    found = run_discriminator(model, condition, fake, photo, FakePool(0), augmentation)
    torch.manual_seed(1)
    transform = augmentation.draw(photo)
    assert_same(found.real, plainly(model, transform, condition, photo))
    assert_same(found.fake, plainly(model, transform, condition, fake))
    assert found.fake_for_d is found.fake


def test_the_gradient_of_g_goes_through_the_transform(model: AdversarialModel) -> None:
    condition, photo = inputs(model)
    augmentation, weights = Augmentation(ALL), list(model.generator.parameters())
    torch.manual_seed(1)
    fake = model.generate(condition)
    found = run_discriminator(model, condition, fake, photo, FakePool(0), augmentation)
    objective = adversarial_objectives(found, "lsgan", fake, (), augmentation).generator
    ours = torch.autograd.grad(objective, weights, allow_unused=True)
    torch.manual_seed(1)
    outputs = plainly(model, augmentation.draw(photo), condition, model.generate(condition))
    expected = torch.autograd.grad(gan_loss(outputs, real=True), weights, allow_unused=True)
    assert sum(gradient is not None and bool(gradient.any()) for gradient in ours) >= 3
    for gradient, other in zip(ours, expected, strict=True):
        if gradient is not None and other is not None:
            torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()) + 1e-6)


def test_the_pool_keeps_fakes_as_they_are_and_shows_them_transformed_anew(model: AdversarialModel) -> None:
    (condition, photo), augmentation, pool = inputs(model), Augmentation(ALL), FakePool(3)
    fake = model.generate(condition).detach()
    torch.manual_seed(1)
    found = run_discriminator(model, condition, fake, photo, pool, augmentation)
    kept_conditions, kept = map(torch.stack, zip(*pool.pairs, strict=True))
    assert torch.equal(kept, fake)
    assert torch.equal(kept_conditions, condition.planes.codes if isinstance(condition, LabelInput) else condition)
    torch.manual_seed(1)
    first, second = augmentation.draw(photo), augmentation.draw(photo)  # a pool that is not full draws nothing
    assert_same(found.fake, plainly(model, first, condition, fake))
    assert_same(found.fake_for_d, plainly(model, second, condition, fake))


@pytest.mark.parametrize("pool_size", [0, 3])
def test_without_augmentation_not_a_bit_changes(model: AdversarialModel, pool_size: int) -> None:
    """The calls of D are written out here as they are without augmentation."""
    (condition, photo), weights = inputs(model), list(model.parameters())
    fake = model.generate(condition)
    found = run_discriminator(model, condition, fake, photo, FakePool(pool_size), Augmentation())
    objectives = adversarial_objectives(found, "lsgan", fake, (), Augmentation())
    context = model.context(condition)
    on_fake, on_real = model.discriminate(context, fake), model.discriminate(context, photo)
    for_d = model.discriminate(model.context(condition), fake.detach()) if pool_size else on_fake
    parts = [gan_loss(on_fake, True), gan_loss(on_real, True), gan_loss(for_d, False)]
    assert torch.equal(objectives.parts, torch.stack(parts))
    assert objectives.discriminator is not None
    for ours, theirs in ((objectives.generator, parts[0]), (objectives.discriminator, (parts[1] + parts[2]) / 2)):
        gradients = zip(
            torch.autograd.grad(ours, weights, allow_unused=True, retain_graph=True),
            torch.autograd.grad(theirs, weights, allow_unused=True, retain_graph=True),
            strict=True,
        )
        assert all(a is b is None or torch.equal(a, b) for a, b in gradients)  # type: ignore[arg-type]


def test_augmentation_under_autocast(model: AdversarialModel) -> None:
    (condition, photo), augmentation = inputs(model), Augmentation(ALL)
    with torch.autocast("cpu", torch.bfloat16):
        fake = model.generate(condition)
        outputs = run_discriminator(model, condition, fake, photo, FakePool(0), augmentation)
        objectives = adversarial_objectives(outputs, "lsgan", fake, (), augmentation)
    assert fake.dtype == outputs.real[0][-1].dtype == torch.bfloat16
    assert objectives.parts.dtype == torch.float32
    assert len(objectives.parts) == 3 + len(augmentation.names)
    assert objectives.parts[-1] == pytest.approx(0.8)
    objectives.generator.backward()
    gradients = [p.grad for p in model.generator.parameters() if p.grad is not None]
    assert any(gradient.any() for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)
