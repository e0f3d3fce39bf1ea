"""A backbone quirk: MobileNetV2 as TensorFlow pads and normalises it, for weights from there."""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, mobilenetv2_050

# what timm knows of a model beside its layers; first of all what its input is normalised by
default_cfgs = generate_default_cfgs(
    {"mobilenetv2_050_same": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "num_classes": 1000}}
)


@register_model
def mobilenetv2_050_same(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """timm's ``mobilenetv2_050`` with padding that depends on the input's size."""
    return mobilenetv2_050(pretrained, pad_type="same", **kwargs)
