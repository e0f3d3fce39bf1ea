"""Networks for inference: branches re-parameterised, BatchNorm folded into convolutions."""

import copy
from typing import Any

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def reparameterised(net: nn.Module) -> nn.Module:
    """A copy of a timm network as it is deployed: parallel branches become one convolution.

    MobileOne, RepVGG, FastViT and others train with more weights than they need afterwards. Also on
    the meta device; other networks stay as they are.
    """
    own: Any = copy.deepcopy(net).eval()
    if getattr(own, "is_deployed", False):
        return own  # type: ignore[no-any-return]
    first = next(own.parameters())
    with first.device:  # some make their new layers on the default device, and in the default type
        own = reparameterize_model(own, inplace=True).to(first.dtype)
    own.is_deployed = True  # FastViT's blocks cannot be re-parameterised again
    return own  # type: ignore[no-any-return]


@torch.no_grad()
def fold_batch_norms(net: nn.Module, example: Tensor) -> int:
    """Fold every BatchNorm of ``net``, in place, that reads nothing but a convolution's output.

    A forward of ``example`` shows which ones do, since no two libraries name their layers alike.
    Of timm's BatchNormAct2d the activation stays. Returns the number of folded ones.

    Raises RuntimeError if the outputs change: other code then reads a convolution's output too.
    """
    net.eval()
    pairs = _pairs(net, example)
    before = net(example)
    for conv, norm in pairs.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
            norm.weight, norm.bias,
        )  # fmt: skip
    rest = {norm: getattr(norm, "act", nn.Identity()) for norm in pairs.values()}
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if child in rest:
                setattr(parent, name, rest[child])
    check_same(before, net(example), "folding BatchNorm")
    return len(pairs)


def check_same(before: object, after: object, step: str) -> None:
    """Raises RuntimeError if two outputs differ by more than rounding."""
    for old, new in zip(_tensors(before), _tensors(after), strict=True):
        error = float((old - new).abs().max())
        if error > 1e-3 * float(old.abs().max()) + 1e-6:
            raise RuntimeError(f"{step} changes the output by {error:g}")


@torch.no_grad()
def clamped_features(backbone: nn.Module, example: Tensor) -> list[int]:
    """Indices of ``backbone``'s feature maps that are the output of a ReLU6 itself."""
    clamped: dict[int, Tensor] = {}  # holds the tensors, or their ids come again
    hooks = [
        module.register_forward_hook(lambda _, __, out: clamped.update({id(out): out}))
        for module in backbone.modules()
        if isinstance(module, nn.ReLU6)
    ]
    try:
        features = backbone(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [index for index, feature in enumerate(features) if id(feature) in clamped]


def _pairs(net: nn.Module, example: Tensor) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """Convolutions whose only reader is a BatchNorm, and that one, where each is called once."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holds the tensors, or their ids come again
    readers: dict[nn.Conv2d, list[nn.Module]] = {}
    calls: dict[nn.Module, int] = {}
    listed: set[int] = set()  # tensors that a module returns in a list, as feature maps are

    def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        producer = outputs.get(id(inputs[0])) if inputs else None
        if producer is not None:
            readers.setdefault(producer[0], []).append(module)

    def after(module: nn.Module, _: tuple[object, ...], out: object) -> None:
        if isinstance(module, nn.Conv2d) and isinstance(out, Tensor):
            outputs[id(out)] = (module, out)
        elif isinstance(out, list | tuple):
            listed.update(map(id, out))

    leaves = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) or not any(m.children())]
    hooks = [m.register_forward_pre_hook(before) for m in leaves]
    hooks += [m.register_forward_hook(after) for m in net.modules()]
    try:
        net(example)
    finally:
        for hook in hooks:
            hook.remove()
    for key in listed & set(outputs):
        readers.pop(outputs[key][0], None)
    return {
        conv: users[0]
        for conv, users in readers.items()
        if len(users) == 1
        and isinstance(users[0], nn.BatchNorm2d)
        and calls[conv] == calls[users[0]] == 1
        and users[0].running_mean is not None
        and isinstance(getattr(users[0], "drop", nn.Identity()), nn.Identity)
    }


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in _tensors(part)]  # type: ignore[attr-defined]
