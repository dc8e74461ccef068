"""What is measured: one file an op, a network, or a part of a user's day."""

from hdgan.benchmarks.runner import Work
from hdgan.benchmarks.works import (
    avg_pyramid,
    data_loading,
    discriminator,
    encode_labels,
    encoder,
    generators,
    instance_index,
    instance_mean,
    instance_norm_act,
    residual_block,
    startup,
    step,
)

ALL = (
    instance_norm_act.WORK,
    instance_mean.WORK,
    instance_index.WORK,
    avg_pyramid.WORK,
    encode_labels.WORK,
    residual_block.WORK,
    generators.G1,
    generators.G2,
    discriminator.WORK,
    encoder.WORK,
    step.WORK,
    data_loading.WORK,
    startup.WORK,
)
WORKS: dict[str, Work] = {work.name: work for work in ALL}
