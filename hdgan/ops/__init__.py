"""The ops of pix2pixHD's hot paths, usable on their own.

Each has a file of its name: first the reference in plain PyTorch, which is its definition, then its registration as a
PyTorch operator, then the public function. The kernels have the same names in csrc/ and kernels/.
"""

from hdgan.ops._backend import BackendError, backend
from hdgan.ops._checks import memory_format_of
from hdgan.ops.avg_pyramid import avg_pyramid
from hdgan.ops.encode_labels import LabelPlanes, boundary_map, encode_labels, label_planes
from hdgan.ops.instance_index import InstanceIndex, instance_index
from hdgan.ops.instance_mean import instance_broadcast, instance_mean, instance_reduce
from hdgan.ops.instance_norm_act import instance_norm_act, pad2d
from hdgan.ops.l1_distance import l1_distance
from hdgan.ops.label_conv2d import label_conv2d

__all__ = [
    "BackendError",
    "InstanceIndex",
    "LabelPlanes",
    "avg_pyramid",
    "backend",
    "boundary_map",
    "encode_labels",
    "instance_broadcast",
    "instance_index",
    "instance_mean",
    "instance_norm_act",
    "instance_reduce",
    "l1_distance",
    "label_conv2d",
    "label_planes",
    "memory_format_of",
    "pad2d",
]
