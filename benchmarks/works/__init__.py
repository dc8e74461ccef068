"""What is measured: one file an op, a network, or a part of a user's day."""

from hdgan.benchmarks.runner import Work
from hdgan.benchmarks.works import (
    avg_pyramid,
    data_loading,
    encode_labels,
    instance_index,
    instance_mean,
    instance_norm_act,
    networks,
    startup,
    step,
)

_OPS = (instance_norm_act, instance_mean, instance_index, avg_pyramid, encode_labels)
ALL = (*(op.WORK for op in _OPS), *networks.WORKS, step.WORK, data_loading.WORK, startup.WORK)
WORKS: dict[str, Work] = {work.name: work for work in ALL}
