"""What all networks have in common: their start, what they hear, and where gradients go."""

import pytest
import torch

import dit
from dit.diffit import DiffiT
from dit.diffit_image import ImageDiffiT
from dit.dit import DiT
from dit.models import NETWORKS, initialised, network
from dit.unet import UNet
from tests.networks import EDM_IMAGE, TINY, inputs, perturb, tiny

KINDS = pytest.mark.parametrize("kind", TINY)


@KINDS
def test_a_backbone_makes_its_network(kind):
    config = tiny(kind)
    expected = {"diffit": DiffiT, "diffit-image": ImageDiffiT, "unet": UNet}.get(kind, DiT)
    assert type(network(config)) is type(initialised(config)) is type(dit.build(config)) is expected
    assert NETWORKS[config.backbone] is expected and network(config).config == config


@KINDS
@pytest.mark.parametrize("fields", [{}, {"num_classes": 0, "learn_sigma": False, "in_channels": 1}], ids=str)
def test_the_output_starts_at_exactly_zero(kind, fields):
    torch.manual_seed(0)
    config = tiny(kind, **fields)
    model = dit.build(config)
    for training in (False, True):
        output = model.train(training)(*inputs(config))
        assert output.shape == (2, config.out_channels, 8, 8) and (output == 0).all()


@KINDS
def test_every_weight_is_initialised(kind, monkeypatch):
    """Memory that happens to be zero, or not a number, would show."""
    config, makes = tiny(kind), torch.empty

    def poisoned(*sizes, **options):
        made = makes(*sizes, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
    model = dit.build(config)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@KINDS
def test_the_same_seed_gives_the_same_start_and_another_does_not(kind):
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        starts.append(torch.cat([part.flatten() for part in dit.build(tiny(kind)).state_dict().values()]))
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


@pytest.fixture(params=TINY)
def model(request):
    """As it starts, but that nothing is zero."""
    torch.manual_seed(0)
    model = dit.build(tiny(request.param)).eval()
    perturb(model)
    return model


def test_picture_timestep_and_label_are_heard(model):
    x, t, y = inputs(model.config)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    with torch.no_grad():
        output = model(x, t, y)
        scale = output.std()
        for name, changed in {
            "picture": (moved, t, y),
            "timestep": (x, t + 100, y),
            "label": (x, t, y + 1),
            "no class": (x, t, torch.full_like(y, 10)),
        }.items():
            assert (model(*changed) - output)[0].abs().max() > 1e-3 * scale, name
        torch.testing.assert_close(model(moved, t, y)[1], output[1])  # no other picture is


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(model):
    x, t, y = inputs(model.config, 3)
    with torch.no_grad():
        alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(model(x, t, y), alone, atol=1e-5, rtol=1e-5)


@KINDS
def test_an_unconditional_model_needs_no_labels(kind, random_model):
    model = random_model(**TINY[kind], num_classes=0)
    x, t, _ = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(model(x, t), model(x, t, torch.tensor([1, 2])))
        assert not torch.allclose(model(x, t), model(x, t + 100), atol=1e-4)


def test_a_conditional_model_wants_labels(model):
    x, t, _ = inputs(model.config)
    with pytest.raises(ValueError, match="10 classes: give y"):
        model(x, t)


def test_labels_are_dropped_in_training_alone(model):
    x, t, y = inputs(model.config, 32)
    x, t = x[:1].expand_as(x), t[:1].expand_as(t)  # all alike, and of one class
    y = torch.zeros_like(y)
    with torch.no_grad():
        alike = model(x, t, y)
        torch.testing.assert_close(alike, alike[:1].expand_as(alike), atol=1e-5, rtol=1e-5)
        null = model(x[:1], t[:1], torch.tensor([10]))[0]
        torch.manual_seed(0)
        trained = model.train()(x, t, y)
    near = [min((trained[i] - other).abs().max() for other in (alike[0], null)) for i in range(32)]
    assert max(near) < 1e-4 * alike.std()
    kept = [bool((trained[i] - alike[0]).abs().max() < (trained[i] - null).abs().max()) for i in range(32)]
    assert 24 <= sum(kept) < 32  # of 32, a tenth is dropped


CASES = [(kind, {}) for kind in TINY]
CASES += [("adaln-zero", {"block_embedders": True}), ("diffit-image", EDM_IMAGE)]


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=str)
def test_gradients_reach_every_weight(kind, fields):
    torch.manual_seed(0)
    model = dit.build(tiny(kind, **fields)).eval()  # every label is kept
    perturb(model)
    x, t, y = inputs(model.config, 4)
    given = [t / 1000.0, y, torch.randn(4, 9)] if model.config.augment_dim else [t, y]
    model(x, *given).square().mean().backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name == "pos_embed" and parameter.grad is None
            continue
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("to_k.bias"):  # what is added to all keys, the softmax takes out again
            assert parameter.grad.abs().max() > 1e-7, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@KINDS
def test_half_precision_weights_take_and_give_float32(kind, dtype, random_model):
    model = random_model(**TINY[kind])
    x, t, y = inputs(model.config)
    with torch.no_grad():
        expected = model(x, t, y)
        output = model.to(dtype)(x, t, y)
    assert output.dtype == torch.float32
    error = (output - expected).square().mean().sqrt() / expected.std()
    assert 0 < error < (0.1 if dtype == torch.bfloat16 else 0.02)


@KINDS
def test_sampling_computes_what_training_does(kind, random_model):
    """Without gradients, other kernels serve on a CPU."""
    model = random_model(**TINY[kind])
    x, t, y = inputs(model.config, 5)
    with torch.no_grad():
        sampled = model(x, t, y)
    torch.testing.assert_close(sampled, model(x, t, y).detach(), atol=1e-5, rtol=1e-5)


@KINDS
def test_weights_are_found_by_name_again(kind, random_model):
    model = random_model(**TINY[kind])
    again = network(model.config).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again(*inputs(model.config)), model(*inputs(model.config)))
