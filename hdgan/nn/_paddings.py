"""What PyTorch calls the paddings that the ops have."""

from __future__ import annotations

from torch import nn

from hdgan.ops.instance_norm_act import PadMode

OF_CONVOLUTIONS: dict[str, PadMode] = {"zeros": "zero", "reflect": "reflect", "replicate": "replicate"}
"""By the padding_mode of nn.Conv2d."""
OF_LAYERS: dict[type[nn.Module], PadMode] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.ZeroPad2d: "zero",
}
"""By the class of a layer."""
OF_CALLS: dict[str, PadMode] = {"reflect": "reflect", "replicate": "replicate", "constant": "zero"}
"""By the mode of F.pad."""
