"""Names of EfficientNet-Lite's weights."""

from __future__ import annotations

from hdgan.weights.efficientnet import is_efficientnet_lite, timm_names

PAIRS = {
    "_conv_stem.weight": "conv_stem.weight",
    "_bn0.running_mean": "bn1.running_mean",
    "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
    "_blocks.0._bn1.bias": "blocks.0.0.bn1.bias",
    "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
    "_blocks.0._bn2.weight": "blocks.0.0.bn2.weight",
    "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
    "_blocks.1._bn0.weight": "blocks.1.0.bn1.weight",
    "_blocks.1._depthwise_conv.weight": "blocks.1.0.conv_dw.weight",
    "_blocks.1._bn1.weight": "blocks.1.0.bn2.weight",
    "_blocks.1._project_conv.weight": "blocks.1.0.conv_pwl.weight",
    "_blocks.1._bn2.weight": "blocks.1.0.bn3.weight",
    "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
    "_blocks.2._bn2.weight": "blocks.1.1.bn3.weight",
    "_conv_head.weight": "conv_head.weight",
    "_bn1.weight": "bn2.weight",
    "_fc.bias": "classifier.bias",
}


def test_every_layer_has_timms_name() -> None:
    state = {name: number for number, name in enumerate(PAIRS)}
    assert timm_names(state, PAIRS.values()) == {PAIRS[name]: number for name, number in state.items()}
    assert is_efficientnet_lite(state)
    assert not is_efficientnet_lite(PAIRS.values())


def test_what_timm_does_not_have_keeps_its_name() -> None:
    unknown = {"_blocks.7._bn1.bias": 1, "_blocks.x": 2, "more": 3}
    assert timm_names({"_conv_stem.weight": 0, **unknown}, PAIRS.values()) == {"conv_stem.weight": 0, **unknown}
