"""The latent DiffiT: its authors' numbers, names and start, and attention computed by hand."""

import pytest
import torch
import torch.nn.functional as F

import dit
from dit.diffit import TMSA, relative_position_index
from dit.guidance import Guided, power_cosine
from dit.layers import sincos_position_table
from dit.models import network
from dit.presets import preset
from tests.networks import TINY


def on_meta(config):
    with torch.device("meta"):
        return network(config)


def test_forward_equals_the_authors(golden_diffit, golden_diffit_model):
    with torch.no_grad():
        output = golden_diffit_model(*(golden_diffit[f"in.{name}"] for name in "xty"))
    assert golden_diffit["out.forward"].abs().max() > 0.1
    torch.testing.assert_close(output, golden_diffit["out.forward"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("t", [999, 500, 250, 100, 0])
def test_three_channels_guided_by_power_cosine_equal_the_authors(t, golden_diffit, golden_diffit_model):
    model = golden_diffit_model
    y = torch.tensor([0, model.config.num_classes - 1])
    guided = Guided(model, y, 4.4, channels=3, schedule=power_cosine)
    with torch.no_grad():
        output = guided(golden_diffit["in.x"][:2], torch.full((2,), t))
    torch.testing.assert_close(output, golden_diffit[f"out.cfg_4.4_t{t}"], atol=1e-5, rtol=0)


def test_the_position_table_is_the_authors(golden_diffit):
    assert torch.equal(golden_diffit["w.pos_embed"][0], sincos_position_table(64, 4))


# name, fields -> all parameters, of them trainable where known, tensors in the authors' file.
PUBLISHED = [
    ("DiffiT-XL/2", {}, 561_330_144, 561_035_232, 346),
    ("DiffiT-XL/2", {"input_size": 64}, 563_562_464, 562_382_816, 346),
    ("DiffiT-XL/2", {"depth": 30}, 601_201_664, None, 370),
    ("DiffiT-XL/2", {"depth": 30, "input_size": 64}, 603_530_240, None, 370),
]


@pytest.mark.parametrize(("name", "fields", "parameters", "trainable", "tensors"), PUBLISHED, ids=str)
def test_parameters_of_the_paper(name, fields, parameters, trainable, tensors):
    config = preset(name, **fields)
    model = on_meta(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learned == (trainable or parameters - config.tokens * config.hidden_size)
    assert len(model.state_dict()) == tensors - config.depth  # less one index buffer a block


@pytest.mark.parametrize(("side", "rows"), [(32, 961), (64, 3969)])
def test_the_state_dict_has_the_authors_names_and_shapes(side, rows):
    model = on_meta(preset("DiffiT-XL/2", input_size=side))
    D, expected = 1152, {"pos_embed": (1, (side // 2) ** 2, 1152)}
    for name, shape in {
        "x_embedder.proj": (D, 4, 2, 2),
        "t_embedder.mlp.0": (D, 256),
        "t_embedder.mlp.2": (D, D),
        "final_layer.linear": (32, D),
    }.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    expected["y_embedder.embedding_table.weight"] = (1001, D)
    for i in range(28):
        expected[f"blocks.{i}.attn.relative_position_bias_table"] = (rows, 16)
        for name, shape in {
            "attn.qkv_temb": (3 * D, D),
            "attn.qkv": (3 * D, D),
            "attn.proj": (D, D),
            "mlp.fc1": (4 * D, D),
            "mlp.fc2": (D, 4 * D),
        }.items():
            expected |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert len(expected) == 318


# --- the relative position bias ---


def test_the_position_index_is_the_authors(golden_diffit):
    for i in range(2):
        index = golden_diffit[f"w.blocks.{i}.attn.relative_position_index"]
        assert torch.equal(relative_position_index(4), index)


def index_by_hand(window: int) -> list[list[int]]:
    places = [(row, column) for row in range(window) for column in range(window)]
    return [
        [(i - k + window - 1) * (2 * window - 1) + (j - m + window - 1) for k, m in places] for i, j in places
    ]


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8])
def test_the_position_index_counts_vertical_then_horizontal_offsets(window):
    index = relative_position_index(window)
    assert index.dtype == torch.int64 and index.tolist() == index_by_hand(window)
    assert set(index.flatten().tolist()) == set(range((2 * window - 1) ** 2))  # no row of the table is idle


def test_bias_tables_start_small_and_random():
    torch.manual_seed(0)
    model = dit.build("DiffiT-N/2", num_classes=3)
    for block in model.blocks:  # 961 * 2 numbers each
        table = block.attn.relative_position_bias_table
        assert table.std().item() == pytest.approx(0.02, rel=0.1) and abs(table.mean().item()) < 0.002
    tables = [block.attn.relative_position_bias_table for block in model.blocks]
    assert not torch.equal(tables[0], tables[1])


# --- attention ---


def random_tmsa(width: int, time_width: int, heads: int, window: int) -> TMSA:
    generator = torch.Generator().manual_seed(0)
    attention = TMSA(width, time_width, heads, window).double().requires_grad_(False)
    for parameter in attention.parameters():
        parameter.normal_(std=0.5, generator=generator)
    return attention


def by_hand(attention: TMSA, x, c, heads: int, window: int, without: str = ""):
    """q, k, v and softmax(QK^T / sqrt(d) + B)V; `without`: which of q, k, v shall not hear of time."""
    (N, T, D), d, weights = x.shape, x.shape[2] // heads, attention.state_dict()
    made = []
    for part, name in enumerate("qkv"):
        rows = slice(part * D, (part + 1) * D)
        of = torch.einsum("ntd,ed->nte", x, weights["qkv.weight"][rows]) + weights["qkv.bias"][rows]
        if name not in without:
            time = torch.einsum("nd,ed->ne", c, weights["qkv_temb.weight"][rows])
            of = of + (time + weights["qkv_temb.bias"][rows])[:, None]
        made.append(of.reshape(N, T, heads, d))
    q, k, v = made
    bias = weights["relative_position_bias_table"][torch.tensor(index_by_hand(window))]  # (T, T, heads)
    scores = torch.einsum("nihd,njhd->nhij", q, k) / d**0.5 + torch.einsum("ijh->hij", bias)
    mixed = torch.einsum("nhij,njhd->nihd", scores.exp() / scores.exp().sum(-1, keepdim=True), v)
    output = torch.einsum("ntd,ed->nte", mixed.reshape(N, T, D), weights["proj.weight"])
    return q, k, v, output + weights["proj.bias"]


@pytest.mark.parametrize(
    ("width", "time_width", "heads", "window"), [(8, 8, 2, 3), (12, 20, 3, 4), (6, 4, 1, 1)]
)
def test_attention_equals_the_formula(width, time_width, heads, window):
    attention = random_tmsa(width, time_width, heads, window)
    x, c = torch.randn(3, window**2, width).double(), torch.randn(3, time_width).double()
    *_, expected = by_hand(attention, x, c, heads, window)
    torch.testing.assert_close(attention(x, c), expected, atol=1e-12, rtol=1e-12)


def recorded_attention(monkeypatch) -> list[dict]:
    """From now on, notes q, k, v and mask of each attention."""
    calls, plain = [], F.scaled_dot_product_attention

    def record(q, k, v, attn_mask=None, **others):
        calls.append({"q": q, "k": k, "v": v, "mask": attn_mask})
        return plain(q, k, v, attn_mask=attn_mask, **others)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return calls


def test_time_shifts_queries_keys_and_values(monkeypatch):
    attention, calls = random_tmsa(8, 6, 2, 3), recorded_attention(monkeypatch)
    x, c = torch.randn(2, 9, 8).double(), torch.randn(2, 6).double()
    output = attention(x, c)
    *made, _ = by_hand(attention, x, c, 2, 3)
    for name, of in zip("qkv", made, strict=True):
        torch.testing.assert_close(calls[0][name], of.transpose(1, 2), atol=1e-12, rtol=1e-12)
    for name in "qv":
        *_, deaf = by_hand(attention, x, c, 2, 3, without=name)
        assert (output - deaf).abs().amax(dim=(1, 2)).min() > 0.05, name
    # What time adds to all keys alike adds the same to all scores of a query; the softmax takes it out.
    *_, deaf = by_hand(attention, x, c, 2, 3, without="k")
    torch.testing.assert_close(output, deaf, atol=1e-12, rtol=1e-12)


def test_each_window_hears_its_own_pictures_time():
    """Two pictures of three windows each: as if each window were a picture."""
    attention = random_tmsa(8, 6, 2, 3)
    x, c = torch.randn(6, 9, 8).double(), torch.randn(2, 6).double()
    expected = torch.cat([attention(x[i : i + 1], c[i // 3 : i // 3 + 1]) for i in range(6)])
    torch.testing.assert_close(attention(x, c), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", ["diffit", "diffit-image"])
def test_the_bias_is_handed_to_the_kernel_once_not_once_a_picture(kind, random_model, monkeypatch):
    model, calls = random_model(**TINY[kind]), recorded_attention(monkeypatch)
    model(torch.randn(3, 3, 8, 8), torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]))
    # Two blocks of one window; of the U, two of four windows, two of one, and two of four again.
    assert [len(call["q"]) for call in calls] == ([3, 3] if kind == "diffit" else [12, 12, 3, 3, 12, 12])
    for call in calls:
        heads, T = call["q"].shape[1:3]
        assert call["mask"].shape == (1, heads, T, T)


def test_blocks_hear_of_the_conditioning_without_an_activation(random_model):
    """TMSA's own linear is all there is between them."""
    model = random_model(**TINY["diffit"])
    block, x = model.blocks[0], torch.randn(1, 16, 32)
    c = torch.randn(1, 32)
    with torch.no_grad():
        q = [block.attn.qkv_temb(sign * c) for sign in (1, -1)]
        torch.testing.assert_close(q[0] + q[1], 2 * block.attn.qkv_temb.bias[None], atol=1e-5, rtol=0)
        assert not torch.allclose(block(x, c), block(x, c.relu()), atol=1e-4)


def test_the_final_layer_is_norm_activation_linear(random_model):
    model = random_model(**TINY["diffit"])
    x = torch.randn(2, 16, 32)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    linear = model.final_layer.linear
    expected = normed * torch.sigmoid(normed) @ linear.weight.T + linear.bias
    for c in torch.randn(2, 2, 32):  # whatever the conditioning
        torch.testing.assert_close(model.final_layer(x, c), expected, atol=1e-5, rtol=0)
