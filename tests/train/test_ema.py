"""The average of the weights."""

import pytest
import torch
from torch import nn

from train.ema import Ema


def shares(ema: Ema, step: int) -> list[float]:
    return [1 - decay for decay in ema.decays(step)]


def test_the_decays_rise_to_their_ceilings():
    ema = Ema(nn.Linear(1, 1), (0.999, 0.0))
    decays = [ema.decays(step)[0] for step in (0, 1, 8, 90, 8980, 8990, 8991, 10**6)]
    expected = [1 / 10, 2 / 11, 9 / 18, 91 / 100, 8981 / 8990, 8991 / 9000, 0.999, 0.999]
    assert decays == pytest.approx(expected, rel=1e-12)
    assert ema.decays(50)[1] == 0.0


def test_an_update_moves_each_average_towards_the_weights():
    model = nn.Linear(2, 2)
    ema = Ema(model, (0.9999, 0.9))
    start = {name: value.clone() for name, value in ema.averages[0].items()}
    with torch.no_grad():
        model.weight.add_(1.0)
    ema.update(shares(ema, 8))  # decay 1/2
    for average in ema.averages:
        torch.testing.assert_close(average["weight"], start["weight"] + 0.5)
        assert torch.equal(average["bias"], start["bias"])
    ema.update(shares(ema, 10**6))  # the ceilings
    torch.testing.assert_close(ema.averages[0]["weight"], start["weight"] + 0.5 + 0.5 * 1e-4)
    torch.testing.assert_close(ema.averages[1]["weight"], start["weight"] + 0.5 + 0.5 * 0.1)


def test_a_share_of_nothing_leaves_the_average_bit_for_bit():
    model = nn.Linear(3, 3)
    ema = Ema(model, (0.99,))
    before = ema.averages[0]["weight"].clone()
    with torch.no_grad():
        model.weight.mul_(3.0)
    ema.update([0.0])
    assert torch.equal(ema.averages[0]["weight"], before)


def test_what_is_not_trained_has_no_average():
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    assert set(Ema(model, (0.99,)).averages[0]) == {"weight"}


@pytest.mark.parametrize("fails", [False, True])
def test_the_average_takes_the_models_place_for_a_while(fails):
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()
    model[1].eval()  # as the label dropout is, whose mode must not change
    ema = Ema(model, (0.9, 0.5))
    with torch.no_grad():
        model[0].weight.add_(1.0)
    own, averages = model[0].weight.clone(), [average["0.weight"].clone() for average in ema.averages]
    try:
        with ema.in_place(1) as drawn:
            assert drawn is model and not model.training and not model[0].training
            assert torch.equal(model[0].weight, averages[1])
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(model[0].weight, own) and model.training and model[0].training
    assert not model[1].training
    assert all(torch.equal(a["0.weight"], b) for a, b in zip(ema.averages, averages, strict=True))
