"""DiT's four block designs: the paper's sizes, each by its formula, and how each starts."""

import pytest
import torch
from torch import nn

import dit
from dit.blocks import CrossAttention
from dit.models import network
from dit.presets import preset
from tests.networks import TINY, inputs, tiny

DESIGNS = ("adaln-zero", "adaln", "cross-attention", "in-context")
PLAIN = ("cross-attention", "in-context")

# DiT-XL/2: all parameters; millions of trainable ones, as the paper's Table 4 prints them.
XL = {
    "": (675_129_632, 675),
    "-adaln": (600_747_296, 600),
    "-in-context": (449_457_440, 449),
    "-cross-attention": (598_286_624, 598),
}


@pytest.mark.parametrize("suffix", XL)
def test_parameters_of_the_paper(suffix):
    with torch.device("meta"):
        model = network(preset(f"DiT-XL/2{suffix}"))
    parameters, millions = XL[suffix]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6) == millions


def names_of(module: nn.Module) -> set[str]:
    return {name.removesuffix(".weight") for name, _ in module.named_parameters() if name.endswith("weight")}


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("adaln-zero", {"adaLN_modulation.1"}),
        ("adaln", {"adaLN_modulation.1"}),
        (
            "cross-attention",
            {"norm1", "norm2", "norm_cross", "cross_attn.q", "cross_attn.kv", "cross_attn.proj"},
        ),
        ("in-context", {"norm1", "norm2"}),
    ],
)
def test_what_a_block_has_besides_attention_and_mlp(kind, parts):
    model = network(tiny(kind))
    common = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    assert all(names_of(block) == common | parts for block in model.blocks)
    assert names_of(model.final_layer) == {"linear", "norm_final" if kind in PLAIN else "adaLN_modulation.1"}


# --- each block by its formula, in float64 ---


def norm(x, eps: float = 1e-6):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt()


def affine(layer: nn.LayerNorm, x):
    return norm(x) * layer.weight + layer.bias


def random_block(kind: str, random_model) -> nn.Module:
    return random_model(**TINY[kind]).double().blocks[0]


def modulation_of(block: nn.Module, c):
    linear = block.adaLN_modulation[1]
    parts = (c * torch.sigmoid(c)) @ linear.weight.T + linear.bias
    return parts[:, None].split(32, dim=-1)


X = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0)).double()
C = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)).double()
MEMORY = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(2)).double()


def assert_is(block: nn.Module, c, expected) -> None:
    torch.testing.assert_close(block(X, c), expected, atol=1e-9, rtol=0)


@torch.no_grad()
def test_adaln_zero_shifts_scales_and_gates(random_model):
    block = random_block("adaln-zero", random_model)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation_of(block, C)
    x = X + gate_a * block.attn(norm(X) * (1 + scale_a) + shift_a)
    assert_is(block, C, x + gate_m * block.mlp(norm(x) * (1 + scale_m) + shift_m))


@torch.no_grad()
def test_adaln_shifts_and_scales(random_model):
    block = random_block("adaln", random_model)
    shift_a, scale_a, shift_m, scale_m = modulation_of(block, C)
    x = X + block.attn(norm(X) * (1 + scale_a) + shift_a)
    assert_is(block, C, x + block.mlp(norm(x) * (1 + scale_m) + shift_m))


@torch.no_grad()
def test_an_in_context_block_is_a_plain_one(random_model):
    block = random_block("in-context", random_model)
    x = X + block.attn(affine(block.norm1, X))
    assert_is(block, MEMORY, x + block.mlp(affine(block.norm2, x)))


@torch.no_grad()
def test_cross_attention_comes_between_attention_and_mlp(random_model):
    block = random_block("cross-attention", random_model)
    x = X + block.attn(affine(block.norm1, X))
    x = x + block.cross_attn(affine(block.norm_cross, x), MEMORY)
    assert_is(block, MEMORY, x + block.mlp(affine(block.norm2, x)))


@torch.no_grad()
@pytest.mark.parametrize("memory", [1, 2])
def test_cross_attention_by_hand(memory, random_model):
    layer = random_block("cross-attention", random_model).cross_attn
    q = (X @ layer.q.weight.T + layer.q.bias).view(2, 16, 2, 16)
    keys, values = (MEMORY[:, :memory] @ layer.kv.weight.T + layer.kv.bias).split(32, dim=-1)
    k, v = (part.reshape(2, memory, 2, 16) for part in (keys, values))
    scores = torch.einsum("nihd,njhd->nhij", q, k) / 16**0.5
    mixed = torch.einsum("nhij,njhd->nihd", scores.softmax(-1), v).reshape(2, 16, 32)
    expected = mixed @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(X, MEMORY[:, :memory]), expected, atol=1e-9, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", DESIGNS)
def test_the_final_layer(kind, random_model):
    layer = random_model(**TINY[kind]).double().final_layer
    if kind in PLAIN:
        expected = layer.linear(affine(layer.norm_final, X))
    else:
        shift, scale = modulation_of(layer, C)
        expected = layer.linear(norm(X) * (1 + scale) + shift)
    assert_is(layer, C, expected)


# --- how each starts ---


@pytest.mark.parametrize("kind", [*DESIGNS, "diffit"])
def test_only_adaln_zero_starts_as_the_identity(kind):
    torch.manual_seed(0)
    model = dit.build(tiny(kind, depth=3))
    x, c = X.float(), (MEMORY if kind in PLAIN else C).float()
    for block in model.blocks:
        if kind == "adaln-zero":
            assert torch.equal(block(x, c), x)
        else:
            assert (block(x, c) - x).abs().mean() > 0.1


@pytest.mark.parametrize("kind", PLAIN)
def test_layer_norms_start_as_plain_ones(kind):
    model = dit.build(tiny(kind))
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == (5 if kind == "in-context" else 7)
    assert all((layer.weight == 1).all() and (layer.bias == 0).all() for layer in norms)
    assert {layer.eps for layer in norms} == {1e-6}


# --- tokens of timestep and label ---


def watch(modules, monkeypatch) -> list[list[torch.Size]]:
    """Shapes of what each of the modules is given from now on."""
    calls = []
    for module in modules:

        def forward(*given, plain=module.forward):
            calls.append([part.shape for part in given if isinstance(part, torch.Tensor)])
            return plain(*given)

        monkeypatch.setattr(module, "forward", forward)
    return calls


@pytest.mark.parametrize(("classes", "memory"), [(10, 2), (0, 1)])
def test_in_context_appends_tokens_and_drops_them(classes, memory, random_model, monkeypatch):
    model = random_model(**TINY["in-context"], num_classes=classes)
    blocks, final = watch(model.blocks, monkeypatch), watch([model.final_layer], monkeypatch)
    assert model(*inputs(model.config)).shape == (2, 6, 8, 8)
    assert [given[0] for given in blocks] == [(2, 16 + memory, 32)] * 2
    assert final[0][0] == (2, 16, 32)


def test_in_context_tokens_come_last_timestep_first(random_model, monkeypatch):
    model = random_model(**TINY["in-context"])
    seen, plain = [], model.blocks[0].forward
    monkeypatch.setattr(model.blocks[0], "forward", lambda x, c, run: seen.append(x) or plain(x, c, run))
    x, t, y = inputs(model.config)
    with torch.no_grad():
        model(x, t, y)
        torch.testing.assert_close(seen[0][:, :16], model.x_embedder(x) + model.pos_embed)
        torch.testing.assert_close(seen[0][:, 16], model.t_embedder(t))
        torch.testing.assert_close(seen[0][:, 17], model.y_embedder(y))


@pytest.mark.parametrize(("classes", "memory"), [(10, 2), (0, 1)])
def test_cross_attention_remembers_timestep_and_label(classes, memory, random_model, monkeypatch):
    model = random_model(**TINY["cross-attention"], num_classes=classes)
    layers = [module for module in model.modules() if isinstance(module, CrossAttention)]
    calls = watch(layers, monkeypatch)
    model(*inputs(model.config))
    assert calls == [[(2, 16, 32), (2, memory, 32)]] * 2
