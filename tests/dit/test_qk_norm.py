"""QK-norm: queries and keys of unit size in every kind of attention, and nothing else changed."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import dit
from dit.config import ModelConfig
from dit.export import check_exportable
from dit.layers import Attention
from dit.presets import preset
from dit.weights import WeightsError, load, save
from tests.networks import TINY, inputs, tiny

KINDS = [kind for kind in TINY if kind != "unet"]


def norms_of(model) -> set[str]:
    return {name for name in model.state_dict() if name.endswith(("q_norm.weight", "k_norm.weight"))}


def test_it_is_rms_norm_of_each_head_with_a_learned_scale(random_model):
    attention = random_model(qk_norm=True).blocks[0].attn.double()
    x = torch.randn(2, 16, 32, dtype=torch.float64)
    q, k, v = attention.qkv(x).view(2, 16, 3, 2, 16).permute(2, 0, 3, 1, 4)

    def unit(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    scores = unit(q, attention.q_norm.weight) @ unit(k, attention.k_norm.weight).mT / 4
    expected = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 16, 32)
    torch.testing.assert_close(attention(x), attention.proj(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_attention_has_it_and_only_where_asked_for(kind):
    plain, normed = dit.build(tiny(kind)), dit.build(tiny(kind, qk_norm=True))
    added = norms_of(normed)
    assert set(normed.state_dict()) == set(plain.state_dict()) | added and not norms_of(plain)
    layers = [name for name in plain.state_dict() if name.endswith(("attn.qkv.weight", "attn.q.weight"))]
    assert len(added) == 2 * len(layers) > 0
    assert {name.rsplit(".", 2)[0] for name in added} == {name.rsplit(".", 2)[0] for name in layers}
    assert all(normed.state_dict()[name].shape == (16,) for name in added)
    assert dit.macs(normed.config) == dit.macs(plain.config)


@pytest.mark.parametrize("kind", KINDS)
def test_with_it_the_size_of_queries_does_not_matter(kind, random_model):
    """Layers that make queries and keys, ten times as large, change nothing."""
    for qk_norm in (True, False):
        model = random_model(qk_norm=qk_norm, **TINY[kind])
        x, t, y = inputs(model.config)
        with torch.no_grad():
            before = model(x, t, y)
            for name, parameter in model.named_parameters():
                if ".attn.qkv" in name:
                    parameter[: 2 * len(parameter) // 3] *= 10
            change = (model(x, t, y) - before).abs().max() / before.abs().max()
        assert change < 1e-5 if qk_norm else change > 1e-3


def test_attention_follows_the_precision_of_its_values(monkeypatch):
    seen, attend = [], F.scaled_dot_product_attention

    def watched(q, k, v, **fields):
        seen.append((q.dtype, k.dtype, v.dtype))
        return attend(q, k, v, **fields)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    attention, x = Attention(32, 2, qk_norm=True), torch.randn(1, 4, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attention(x)
    whole = attention(x)
    assert seen == [(torch.bfloat16,) * 3, (torch.float32,) * 3]
    torch.testing.assert_close(half.float(), whole, atol=0.02, rtol=0.05)
    assert attention.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_it_learns():
    torch.manual_seed(0)
    model = dit.build(tiny("adaln-zero", qk_norm=True))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.05 * torch.randn(parameter.shape))
    model(*inputs(model.config)).square().sum().backward()
    for name in norms_of(model):
        assert model.get_parameter(name).grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", ["adaln-zero", "diffit"])
def test_a_file_tells_that_its_model_has_it(kind, random_model, tmp_path):
    model = random_model(qk_norm=True, **TINY[kind])
    save(tmp_path / "own.safetensors", model)
    again = load(tmp_path / "own.safetensors")
    assert again.config == model.config
    x, t, y = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(again(x, t, y), model(x, t, y))


@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_bare_state_dict_tells_it_too(qk_norm, tmp_path):
    model = dit.build("DiT-N/4", input_size=16, in_channels=3, num_classes=10, qk_norm=qk_norm)
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    assert load(tmp_path / "bare.safetensors").config.qk_norm is qk_norm


def test_diffusers_has_no_place_for_it():
    check_exportable(preset("DiT-S/2"))
    with pytest.raises(WeightsError, match="queries and keys are normalised"):
        check_exportable(preset("DiT-S/2", qk_norm=True))


def test_a_unet_has_none():
    with pytest.raises(ValueError, match="qk_norm is True, but backbone unet has no qk_norm; leave it out"):
        ModelConfig(**(preset("UNet-C").to_dict() | {"qk_norm": True}))
