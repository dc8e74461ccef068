"""What all families share: base config and model, the batch, adversarial and perceptual losses, the pool of fakes."""
