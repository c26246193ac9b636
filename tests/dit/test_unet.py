"""The U-Net: diffusers' own, with this project's labels, start and number formats."""

import pytest
import torch

import dit
from dit.models import network
from dit.presets import MODELS, preset
from dit.unet import norm_groups
from tests.networks import TINY, inputs, perturb, tiny

NULL = 10


@pytest.fixture
def model(random_model):
    return random_model(**TINY["unet"], class_dropout_prob=0.5)


def test_it_is_diffusers_network(model):
    x, t, y = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(model(x, t, y), model.unet(x, t, class_labels=y).sample)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("UNet")])
def test_attention_in_all_stages_but_the_first_and_in_the_middle(name):
    config = preset(name)
    with torch.device("meta"):
        unet = network(config).unet
    width = [width for width, _ in config.stages]
    ways = (zip(unet.down_blocks, width, strict=True), zip(unet.up_blocks, width[::-1], strict=True))
    for way, more in zip(ways, (0, 1), strict=True):
        for block, of in way:
            attentions = list(getattr(block, "attentions", None) or [])
            assert len(block.resnets) == config.depth + more
            assert len(attentions) == (config.depth + more if of != width[0] else 0)
            assert all(attention.heads == of // config.head_size for attention in attentions)
    assert len(unet.mid_block.attentions) == 1


@pytest.mark.parametrize(
    ("width", "groups"), [(4, 1), (8, 2), (12, 3), (16, 4), (128, 32), (224, 32), (148, 4)]
)
def test_groups_divide_the_width(width, groups):
    assert norm_groups(tiny("unet", hidden_size=width)) == groups


def labels_given(model, monkeypatch) -> list[list[int]]:
    """Labels that diffusers' network is given from now on."""
    calls, plain = [], model.unet.forward

    def forward(x, t, y, **others):
        calls.append(None if y is None else y.tolist())
        return plain(x, t, y, **others)

    monkeypatch.setattr(model.unet, "forward", forward)
    return calls


def test_labels_are_dropped_in_training_alone(model, monkeypatch):
    calls, (x, t, _) = labels_given(model, monkeypatch), inputs(model.config, 64)
    y = torch.arange(64) % 10
    with torch.no_grad():
        model.eval()(x, t, y)
        torch.manual_seed(0)
        model.train()(x, t, y)
    assert calls[0] == y.tolist()
    dropped = [given for given, label in zip(calls[1], y.tolist(), strict=True) if given != label]
    assert set(dropped) == {NULL} and 16 <= len(dropped) <= 48  # four standard deviations about half


def test_without_dropout_none_is_dropped_and_there_is_no_null_row(random_model, monkeypatch):
    model = random_model(**TINY["unet"], class_dropout_prob=0.0)
    calls, (x, t, y) = labels_given(model, monkeypatch), inputs(model.config, 32)
    with torch.no_grad():
        model.train()(x, t, y)
    assert calls == [y.tolist()]
    assert len(model.unet.class_embedding.weight) == 10


def test_the_null_row_is_one_of_its_own(model):
    assert len(model.unet.class_embedding.weight) == 11
    x, t, _ = inputs(model.config, 1)
    with torch.no_grad():
        outputs = torch.cat([model(x, t, torch.tensor([label])) for label in (NULL, 0, 9)])
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4 and (outputs[0] - outputs[2]).abs().max() > 1e-4


def test_an_unconditional_one_needs_no_labels_and_ignores_them(random_model):
    model = random_model(**TINY["unet"], num_classes=0)
    assert model.unet.class_embedding is None
    x, t, _ = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(model(x, t), model(x, t, torch.tensor([3, 4])))


@pytest.mark.parametrize("channel_mult", [(1,), (1, 2), (2, 1, 3), (1, 1, 2, 2)], ids=str)
def test_one_to_four_stages(channel_mult):
    config = tiny("unet", channel_mult=channel_mult, depth=1)
    model = dit.build(config).eval()
    perturb(model)
    with torch.no_grad():
        output = model(*inputs(config))
    assert output.shape == (2, 6, 8, 8) and output.abs().max() > 0
    assert [block.resnets[0].out_channels // 32 for block in model.unet.down_blocks] == list(channel_mult)


def test_dropout_reaches_diffusers():
    model = network(tiny("unet", dropout=0.25))
    assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} >= {0.25}
