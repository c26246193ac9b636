"""The estimate of a step's memory, against what a real step on the CPU allocates."""

import copy

import pytest
import torch

import dit
from dit import edm
from dit.config import ModelConfig
from dit.counts import count
from dit.diffusion import training_losses
from dit.memory import Tally
from train.config import TrainConfig
from train.footprint import footprint
from train.remat import parts, rematerialise


def peak_of_a_real_step(config: ModelConfig, pictures: int, bf16: bool, remat: bool) -> int:
    """Bytes alive at once, with weights, average, moments and gradients; the second step takes two passes."""
    with Tally() as tally:
        model = dit.build(config).train()
        average = copy.deepcopy(model).requires_grad_(False)
        if remat:
            rematerialise(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        for passes in (1, 2):  # the moments come with the first step
            for _ in range(passes):
                x0 = torch.randn(pictures, config.in_channels, config.input_size, config.input_size)
                y = torch.zeros(pictures, dtype=torch.long)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    if config.formulation == "edm":
                        terms = edm.training_losses(model, x0, edm.draw_sigmas(pictures), y)
                    else:
                        terms = training_losses(model, x0, torch.randint(0, 1000, (pictures,)), y)
                terms["loss"].mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 0.1)
    return tally.peak


@pytest.mark.parametrize(
    "name, side, pictures, bf16, remat",
    [
        ("DiT-N/8", 32, 1, False, False),
        ("DiT-N/4", 32, 8, False, False),
        ("DiT-N/4", 32, 4, True, False),
        ("DiT-N/4", 32, 8, False, True),
        ("DiT-C/4-in-context", 32, 4, True, True),  # deep enough to be extrapolated
        ("DiffiT-C-32", 16, 2, False, False),
        ("DiffiT-C-32", 16, 4, True, True),
    ],
)
def test_a_real_step_takes_a_little_less_than_estimated(name, side, pictures, bf16, remat):
    config = TrainConfig(model=name, image_size=side).network()
    real = peak_of_a_real_step(config, pictures, bf16, remat)
    estimate = footprint(config, bf16=bf16, remat=remat).total(pictures)
    assert 0.84 * estimate < real <= estimate


@pytest.mark.parametrize("name", ["DiT-N/4", "DiffiT-C-32", "UNet-C"])
def test_computing_again_changes_no_gradient(name):
    config = TrainConfig(model=name, class_dropout_prob=0.0).network()
    torch.manual_seed(0)
    model = dit.build(config).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    again = copy.deepcopy(model)
    rematerialise(again)
    assert len(parts(again)) >= config.depth and set(again.state_dict()) == set(model.state_dict())
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    for one in (model, again):
        torch.manual_seed(1)  # dropout
        one(x, torch.tensor([10.0, 500.0]), y).square().mean().backward()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            assert a.grad.abs().max() > 0 and torch.equal(a.grad, b.grad)


def test_the_parts_of_a_footprint():
    config = TrainConfig(model="DiT-N/8").network()
    counted, one = count(config), footprint(config)
    assert (one.weights, one.averages) == (4 * counted.parameters, 4 * counted.parameters)
    assert (one.gradients, one.moments) == (4 * counted.trainable, 8 * counted.trainable)
    assert footprint(config, averages=3).averages == 3 * one.averages
    assert one.total(5) - one.total(3) == 2 * one.picture
    quarter = footprint(config, parts=4)
    assert quarter.picture == one.picture
    assert [getattr(quarter, name) for name in ("weights", "gradients", "moments", "averages")] == [
        getattr(one, name) // 4 for name in ("weights", "gradients", "moments", "averages")
    ]


def test_deep_models_are_extrapolated():
    """From 2 and 4 blocks to 6: as if 6 were measured."""
    from train.footprint import _activations, _peak

    config = TrainConfig(model="DiT-N/8", depth=6).network()
    fixed, picture = _activations(config, False, False)
    measured = _peak(config, 40, False, False)
    assert 0.98 * measured < fixed + 40 * picture < 1.06 * measured


@pytest.mark.parametrize("remat, bf16", [(False, False), (True, True)])
def test_the_rough_estimate_is_never_less(remat, bf16):
    config = TrainConfig(model="DiT-N/8").network()
    rough, exact = (footprint(config, remat=remat, bf16=bf16, roughly=roughly) for roughly in (True, False))
    for pictures in (1, 2, 40):
        assert exact.total(pictures) <= rough.total(pictures)
    assert rough.total(1) < 1.05 * exact.total(1)
