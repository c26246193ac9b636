"""Guidance: the authors' numbers, which channels and timesteps it acts on, and what it costs."""

import pytest
import torch
from torch import nn

from dit.diffusion import to_epsilon
from dit.guidance import Guided, power_cosine


class Watched(nn.Module):
    """A model that notes the labels of every forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config, self.labels = model, model.config, []

    def forward(self, x, t, y=None):
        assert y is None or len(x) == len(t) == len(y)
        self.labels.append(y.tolist() if y is not None else [None] * len(x))
        return self.model(x, t, y)


@pytest.mark.parametrize("scale", [1.0, 1.5, 4.0])
def test_three_guided_channels_equal_the_authors(scale, golden, golden_model):
    guided = Guided(golden_model, golden["in.cfg_y"], scale, channels=3)
    with torch.no_grad():
        output = guided(golden["in.cfg_x"], golden["in.cfg_t"])
    torch.testing.assert_close(output, golden[f"out.cfg_{scale}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_guided_channels_move_and_the_others_stay(channels, prediction, random_model):
    model = random_model(in_channels=4, prediction=prediction)
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([300, 300]), torch.tensor([3, 4])
    count = channels or 4
    with torch.no_grad():
        output = Guided(model, y, 3.0, channels=channels)(x, t)
        conditional, null = model(x, t, y), model(x, t, torch.tensor([10, 10]))
    expected = conditional.clone()
    expected[:, :count] = null[:, :count] + 3 * (conditional - null)[:, :count]
    expected[:, :4] = to_epsilon(expected[:, :4], x, t, prediction)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    plain = Guided(model, y)(x, t)
    differs = (output - plain).abs().amax(dim=(0, 2, 3)) > 1e-4
    assert differs.tolist() == [i < count for i in range(8)]


@pytest.mark.parametrize("classes", [7, 10])
def test_the_null_class_is_the_models_own(classes, random_model):
    model = Watched(random_model(num_classes=classes))
    Guided(model, torch.tensor([0, 6]), 2.0)(torch.randn(2, 3, 8, 8), torch.tensor([5, 5]))
    assert model.labels == [[0, 6, classes, classes]]


def test_scale_1_costs_one_pass_and_is_the_model_itself(random_model):
    model = Watched(random_model())
    x, t, y = torch.randn(3, 3, 8, 8), torch.full((3,), 9), torch.tensor([1, 2, 10])
    guided = Guided(model, y, 1.0)
    with torch.no_grad():
        output = guided(x, t)
        assert model.labels == [[1, 2, 10]] and guided.passes(9) == 1
        assert torch.equal(output, model(x, t, y))


def test_scale_0_is_the_null_class(random_model):
    model, t = random_model(), torch.full((2,), 400)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        output = Guided(model, torch.tensor([1, 2]), 0.0)(x, t)
        torch.testing.assert_close(output[:, :3], model(x, t, torch.tensor([10, 10]))[:, :3])


def test_outside_the_interval_the_null_class_is_not_evaluated(random_model):
    model = Watched(random_model())
    guided = Guided(model, torch.tensor([1, 2]), 3.0, interval=(200, 500))
    x = torch.randn(2, 3, 8, 8)
    for t, passes in [(199, 1), (200, 2), (350, 2), (500, 2), (501, 1), (0, 1), (999, 1)]:
        model.labels.clear()
        with torch.no_grad():
            output = guided(x, torch.full((2,), t))
            assert [len(labels) for labels in model.labels] == [2 * passes], t
            conditional = model(x, torch.full((2,), t), torch.tensor([1, 2]))
        assert guided.passes(t) == passes and guided.scale_at(t) == (3.0 if passes == 2 else 1.0)
        assert torch.equal(output, conditional) is (passes == 1)


@pytest.mark.parametrize(
    ("t", "scale"), [(999, 1.0), (750, 1.00013), (500, 1.03267), (250, 1.77295), (100, 3.50067), (0, 4.4)]
)
def test_power_cosine_is_diffits(t, scale, random_model):
    guided = Guided(random_model(), torch.tensor([1]), 4.4, schedule=power_cosine)
    assert guided.scale_at(t) == pytest.approx(scale, abs=5e-6)


def test_power_cosine_is_used_in_the_forward_pass(random_model):
    model, x, y = random_model(), torch.randn(1, 3, 8, 8), torch.tensor([1])
    t = torch.tensor([250])
    with torch.no_grad():
        scheduled = Guided(model, y, 4.4, schedule=power_cosine)(x, t)
        constant = Guided(model, y, power_cosine(4.4, 250))(x, t)
    assert torch.equal(scheduled, constant)


def test_an_unconditional_model_is_not_guided(random_model):
    model = Watched(random_model(num_classes=0))
    Guided(model, None)(torch.randn(2, 3, 8, 8), torch.tensor([5, 5]))
    assert model.labels == [[None, None]]
    with pytest.raises(ValueError, match="guidance_scale is 2.0.*num_classes 0"):
        Guided(model, None, 2.0)


def test_a_model_without_dropout_has_no_null_class(random_model):
    model = random_model(class_dropout_prob=0.0)
    Guided(model, torch.tensor([9]))
    with pytest.raises(ValueError, match="guidance_scale is 2.0.*class_dropout_prob 0.0"):
        Guided(model, torch.tensor([9]), 2.0)
    with pytest.raises(ValueError, match=r"labels \[10\]"):
        Guided(model, torch.tensor([10]))


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        ([1], {"scale": -0.5}, "guidance_scale is -0.5"),
        ([1], {"scale": float("nan")}, "guidance_scale is nan"),
        ([1], {"scale": float("inf")}, "guidance_scale is inf"),
        (None, {}, "10 classes"),
        ([-1], {}, r"labels \[-1\].*0..10"),
        ([1, 11], {}, r"labels \[1, 11\].*0..10"),
        ([1], {"channels": 0}, "guided_channels is 0.*1 to 3"),
        ([1], {"channels": 4}, "guided_channels is 4.*1 to 3"),
        ([1], {"interval": (-1, 5)}, r"interval is \(-1, 5\)"),
        ([1], {"interval": (6, 5)}, r"interval is \(6, 5\)"),
        ([1], {"interval": (0, 1000)}, r"interval is \(0, 1000\)"),
    ],
    ids=str,
)
def test_what_the_model_cannot_serve_is_refused(labels, settings, said, random_model):
    with pytest.raises(ValueError, match=said):
        Guided(random_model(), labels and torch.tensor(labels), **settings)


def test_labels_for_an_unconditional_model_are_refused(random_model):
    with pytest.raises(ValueError, match="0 classes"):
        Guided(random_model(num_classes=0), torch.tensor([0]))
