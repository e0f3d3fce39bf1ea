"""Networks that wait for their weights."""

import pytest
import torch

from benchmark.experiment.config import make_config
from benchmark.experiment.network import build_model, unfilled_model
from benchmark.experiment.plan import make_tasks, resolve
from benchmark.speed.fresh import FreshProcess
from benchmark.speed.memory import reset_peak, resident

MIB = 2**20


def config_of(backbone="test_resnet", decoder="unet-connectivity"):
    return resolve(make_config({"task": "edges", "dataset": "scenes", "image_size": "64",
                                "backbone": backbone, "decoder": decoder}))  # fmt: skip


@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [("test_resnet", "sparsemask"), ("test_nfnet", "hed"), ("test_convnext", "encnet"),
     ("test_efficientnet", "smp-unet"), ("mobilevitv2_050", "fcn")],
)  # fmt: skip
def test_it_is_the_network_once_it_has_its_weights(backbone, decoder):
    config = config_of(backbone, decoder)
    tasks = make_tasks(config)
    model, unfilled = build_model(config, tasks).eval(), unfilled_model(config, tasks).eval()
    assert all(p.requires_grad for p in unfilled.parameters())
    unfilled.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(unfilled(images)["edges"], model(images)["edges"])


def test_no_number_is_drawn_for_it():
    config = config_of()
    unfilled_model(config, make_tasks(config))
    after = torch.get_rng_state()
    torch.manual_seed(config.seed)
    assert torch.equal(torch.get_rng_state(), after)
    build_model(config, make_tasks(config))
    assert not torch.equal(torch.get_rng_state(), after)


def peak_of_vgg() -> int:
    config = config_of("vgg16", "hed")
    tasks = make_tasks(config)
    reset_peak()
    before = resident("VmRSS")
    unfilled_model(config, tasks)
    return resident("VmHWM") - before


@pytest.mark.slow
def test_a_classifier_that_nobody_wants_takes_no_memory():
    with FreshProcess() as process:
        # the features have 56 MiB, the classifier 400; timm builds both twice
        assert process.call(peak_of_vgg) / MIB < 200
