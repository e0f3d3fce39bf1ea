"""Every family of timm: a small member's whole state loaded by ``--weights``, then a network on it.

``python -m tests.studies.weights_of_families [PATTERN]`` prints a line for each: whether the
backbone's tensors are the model's own, and whether a network on it takes odd sizes, passes
gradients, is fused and exported with the same outputs; or why the family has no backbone here.
"""

import json
import sys
import tempfile
import warnings
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from common.errors import DataError, UsageError, first_line
from models.backbone_facts import TABLE
from models.backbones import Backbone, create_backbone, create_without_weights
from models.create import create_decoder
from models.predictor import DensePredictor

FEW = 6
"""Members tried until one is a backbone."""
ODD = (97, 131)


def families() -> dict[str, list[str]]:
    """timm's models by the module that defines them, the smallest first."""
    known = json.loads(TABLE.read_bytes())["models"]
    members = defaultdict(list)
    for name in sorted(timm.list_models(), key=lambda n: (known.get(n, {}).get("params", 1e12), n)):
        members[timm.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    return dict(sorted(members.items()))


def whole_model(name: str) -> nn.Module:
    """A model with its classifier, whose numbers are nobody else's."""
    torch.manual_seed(7)
    model = timm.create_model(name).eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.01)
    return model


def tensors_of(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's numbers, by names as the whole model has them, without dots."""
    return {
        key.replace(".", "_"): tensor
        for key, tensor in backbone.net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def check(name: str, folder: Path, used: bool = False) -> int:
    """The number of tensors that ``name`` takes from a file of its own. Raises AssertionError."""
    model = whole_model(name)
    path = folder / "model.pth"
    torch.save(model.state_dict(), path)
    backbone = create_backbone(name, weights=path)
    loaded = tensors_of(backbone)
    own = {key.replace(".", "_"): tensor for key, tensor in model.state_dict().items()}
    for key, tensor in loaded.items():
        other = own.get(key, own.get(key.removeprefix("model_").removeprefix("body_")))
        assert other is not None, f"{key} is not the model's"
        assert torch.equal(tensor, other), f"{key} is not the file's"
    if used:
        use(backbone)
    return len(loaded)


def use(backbone: Backbone) -> None:
    """A network on ``backbone`` from training to export. Raises AssertionError that says where."""
    torch.manual_seed(0)
    decoder = create_decoder("encoder-sum", backbone.features, width=8)
    network = DensePredictor(backbone, decoder, {"x": 3})
    size = backbone.fixed_size or ODD
    images = torch.rand(2, 3, *size)
    network.train()(images)["x"].square().mean().backward()
    idle = [name for name, p in decoder.named_parameters() if p.grad is None]
    reached = [p for p in backbone.parameters() if p.grad is not None and bool(p.grad.any())]
    assert not idle, f"no gradient in {idle[0]}"
    assert len(reached) > 0.5 * len(list(backbone.parameters())), "most weights get no gradient"
    network.eval()
    with torch.no_grad():
        try:
            fused = network.fuse()
        except RuntimeError:  # a network of random numbers may round by more than fusion may change
            network, images = network.double(), images.double()
            fused = network.fuse()
        expected = network(images[:1])["x"]
        assert expected.shape == (1, 3, *size)
        exported = torch.export.export(fused, (images[:1],)).module()
        for way, found in (("fused", fused), ("exported", exported)):
            error = float((found(images[:1])["x"] - expected).abs().max())
            assert error <= 1e-4 * float(expected.abs().max()), f"{way}: other outputs by {error:g}"


def tried(members: list[str], folder: Path, used: bool = False) -> tuple[str, str]:
    """``passed``, ``failed`` or ``no backbone``, and a line about it."""
    reasons = []
    for name in members[:FEW]:
        try:
            create_without_weights(name)
        except (UsageError, DataError) as error:
            reasons.append(str(error))
            continue
        try:
            return "passed", f"{name}: {check(name, folder, used)} tensors"
        except (DataError, AssertionError, RuntimeError) as error:
            return "failed", f"{name}: {first_line(error)}"
    return "no backbone", reasons[0]


def main(pattern: str = "*") -> None:
    counts: dict[str, int] = defaultdict(int)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for family, members in families().items():
            if not fnmatch(family, pattern):
                continue
            outcome, line = tried(members, Path(folder), used=True)
            counts[outcome] += 1
            print(f"{family:<32} {outcome:<12} {line}", flush=True)  # noqa: T201
    print(dict(counts))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
