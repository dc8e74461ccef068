"""The ops as modules, for networks of your own.

Each takes the place of modules of `torch.nn`, and has their defaults and their state dict:

    InstanceNormAct2d   nn.InstanceNorm2d, then an activation and padding, and the addition of a residual
    InstanceNormAct3d   nn.InstanceNorm3d, then an activation, and the addition of a residual
    AvgPyramid          nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), applied repeatedly
    LabelConv2d         nn.Conv2d of the one-hot planes of a label map
    InstanceMean        a loop over instances that averages features in each

They run on the kernels for the device of their input (`hdgan.ops.backend`). They can be copied, pickled, compiled,
exported and wrapped in DistributedDataParallel like any other module; torch.fx has to be told that they are leaves.
Under `torch.autocast` they return the dtypes that the modules of `torch.nn` return.
"""

from hdgan.nn.instance_norm_act import InstanceNormAct2d, InstanceNormAct3d
from hdgan.nn.label_conv2d import LabelConv2d
from hdgan.nn.pooling import AvgPyramid, InstanceMean

__all__ = ["AvgPyramid", "InstanceMean", "InstanceNormAct2d", "InstanceNormAct3d", "LabelConv2d"]
