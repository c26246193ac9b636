"""The transformer: the authors' sizes, names, numbers and start, and what its output depends on."""

import math
from dataclasses import replace

import pytest
import torch

import dit
from dit.config import ModelConfig
from dit.dit import DiT
from dit.layers import LabelEmbedder, Mlp, gelu, sincos_position_table, sinusoids
from dit.presets import preset

# Parameters and multiply-accumulates of facebookresearch/DiT's own models.py, 1000 classes, learned sigma:
# size/patch -> all parameters at 256 px, of them trainable, MACs at 256 px, all at 512 px, MACs at 512 px.
COUNTS = {
    "S/8": (33_148_160, 33_142_016, 357_974_016, 33_166_592, 1_426_735_104),
    "S/4": (32_945_024, 32_920_448, 1_412_579_328, 33_018_752, 6_069_829_632),
    "S/2": (32_963_360, 32_865_056, 6_055_673_856, 33_258_272, 31_436_980_224),
    "B/8": (130_881_536, 130_869_248, 1_417_543_680, 130_918_400, 5_593_497_600),
    "B/4": (130_475_648, 130_426_496, 5_565_186_048, 130_623_104, 23_033_413_632),
    "B/2": (130_512_416, 130_315_808, 23_005_102_080, 131_102_240, 106_382_622_720),
    "L/8": (458_594_816, 458_578_432, 5_011_406_848, 458_643_968, 19_733_413_888),
    "L/4": (458_053_760, 457_988_224, 19_695_665_152, 458_250_368, 80_735_371_264),
    "L/2": (458_102_816, 457_840_672, 80_697_622_528, 458_889_248, 360_981_987_328),
    "XL/8": (675_683_072, 675_664_640, 7_392_411_648, 675_738_368, 29_086_138_368),
    "XL/4": (675_074_432, 675_000_704, 29_043_671_040, 675_295_616, 118_663_888_896),
    "XL/2": (675_129_632, 674_834_720, 118_621_421_568, 676_014_368, 524_538_298_368),
}


def on_meta(config: ModelConfig) -> DiT:
    with torch.device("meta"):
        return DiT(config)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_macs_of_the_paper(name, side):
    all_256, trainable, macs_256, all_512, macs_512 = COUNTS[name]
    config = preset(f"DiT-{name}", input_size=side)
    parameters = list(on_meta(config).parameters())
    assert sum(p.numel() for p in parameters) == (all_256 if side == 32 else all_512)
    assert sum(p.numel() for p in parameters if p.requires_grad) == trainable
    assert dit.macs(config) == (macs_256 if side == 32 else macs_512)


def test_forward_equals_the_authors(golden, golden_model):
    with torch.no_grad():
        output = golden_model(golden["in.x"], golden["in.t"], golden["in.y"])
    assert golden["out.forward"].abs().max() > 0.1
    torch.testing.assert_close(output, golden["out.forward"], atol=1e-5, rtol=0)


def block_names(i: int) -> set[str]:
    linears = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    return {f"blocks.{i}.{linear}.{part}" for linear in linears for part in ("weight", "bias")}


@pytest.mark.parametrize(("name", "tensors"), [("DiT-XL/2", 292), ("DiT-B/4", 132)])
def test_the_state_dict_has_the_authors_layout(name, tensors):
    config = preset(name)
    shapes = {key: tuple(value.shape) for key, value in on_meta(config).state_dict().items()}
    assert len(shapes) == tensors
    others = ("x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2")
    others += ("final_layer.linear", "final_layer.adaLN_modulation.1")
    expected = {f"{module}.{part}" for module in others for part in ("weight", "bias")}
    expected |= {"pos_embed", "y_embedder.embedding_table.weight"}
    assert set(shapes) == expected.union(*(block_names(i) for i in range(config.depth)))
    D, p = config.hidden_size, config.patch_size
    assert shapes["pos_embed"] == (1, config.tokens, D)
    assert shapes["x_embedder.proj.weight"] == (D, 4, p, p)
    assert shapes["y_embedder.embedding_table.weight"] == (1001, D)
    assert shapes["t_embedder.mlp.0.weight"] == (D, 256)
    assert shapes["blocks.0.attn.qkv.weight"] == (3 * D, D)
    assert shapes["blocks.0.mlp.fc1.weight"] == (4 * D, D)
    assert shapes["blocks.0.adaLN_modulation.1.weight"] == (6 * D, D)
    assert shapes["final_layer.linear.weight"] == (8 * p * p, D)
    assert shapes["final_layer.adaLN_modulation.1.weight"] == (2 * D, D)


EMBEDDER = {f"t_embedder.mlp.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")}


@pytest.mark.parametrize("num_classes", [0, 7])
def test_blocks_with_embedders_of_their_own_have_the_names_besides(num_classes):
    """The first block shares the final layer's, under the authors' names; the others' are numbered from 0."""
    plain = preset("DiT-N/4", num_classes=num_classes)
    names = [set(on_meta(config).state_dict()) for config in (plain, replace(plain, block_embedders=True))]
    own = EMBEDDER | ({"y_embedder.embedding_table.weight"} if num_classes else set())
    assert names[0] < names[1] and plain.depth == 4
    assert names[1] - names[0] == {f"embedders.{i}.{name}" for i in range(3) for name in own}


@pytest.fixture(scope="module")
def fresh():
    torch.manual_seed(0)
    return dit.build("DiT-N/2", input_size=8, in_channels=3, num_classes=10)


def test_a_fresh_models_output_is_exactly_zero(fresh):
    output = fresh(torch.randn(2, 3, 8, 8), torch.tensor([3, 999]), torch.tensor([0, 10]))
    assert output.shape == (2, 6, 8, 8) and (output == 0).all()


def test_each_block_of_a_fresh_model_is_the_identity(fresh):
    x, c = torch.randn(2, 16, 128), torch.randn(2, 128)
    assert len(fresh.blocks) == 4
    for block in fresh.blocks:
        assert torch.equal(block(x, c), x)


def test_the_start_is_the_authors(fresh):
    """Xavier's uniform bound for linears, and for patches as the linear they are; else N(0, 0.02)."""
    for linear in (fresh.blocks[0].attn.qkv, fresh.blocks[0].mlp.fc1, fresh.x_embedder.proj):
        bound = (6 / (linear.weight[0].numel() + len(linear.weight))) ** 0.5
        assert 0.97 * bound < linear.weight.abs().max() <= bound
        assert (linear.bias == 0).all()
    for normal in (fresh.t_embedder.mlp[0], fresh.t_embedder.mlp[2], fresh.y_embedder.embedding_table):
        assert normal.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(fresh.pos_embed[0], sincos_position_table(128, 4))


def test_the_position_table(fresh):
    table = sincos_position_table(384, 16)
    assert table.shape == (256, 384) and table.dtype == torch.float32
    right, down = table[1], table[16]  # row 0, column 1; row 1, column 0
    torch.testing.assert_close(right[:3], torch.tensor([0.841471, 0.788593, 0.734822]), atol=1e-6, rtol=0)
    assert (right[192:288] == 0).all() and (right[288:] == 1).all()
    assert torch.equal(down, right.roll(192))
    assert table.double().sum().item() == pytest.approx(44720.3386, abs=1e-3)
    assert table.double().square().sum().item() == pytest.approx(49152, abs=1e-3)
    assert not fresh.pos_embed.requires_grad


def test_the_timestep_sinusoids():
    embedded = sinusoids(torch.tensor([0, 1, 500, 999]))
    assert embedded.shape == (4, 256) and embedded.dtype == torch.float32
    sums = embedded.double().sum(dim=1).tolist()
    # An angle near 999 is off by up to 3e-5 in float32, and 256 entries are added.
    assert sums == pytest.approx([128, 138.00299, 57.54699, 52.50462], abs=5e-4)
    cosines, sines = embedded[1, :2].tolist(), embedded[1, 128:130].tolist()
    assert cosines == pytest.approx([0.540302, 0.597375], abs=1e-6)
    assert sines == pytest.approx([0.841471, 0.801962], abs=1e-6)


def test_diffusers_timestep_sinusoids():
    """Its get_timestep_embedding with downscale_freq_shift 1: exponents end at 1, not at 127 / 128."""
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0, 1, 500, 999])
    for shift in (0, 1):
        theirs = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=shift)
        torch.testing.assert_close(sinusoids(t, shift), theirs, atol=1e-4, rtol=0)
    assert sinusoids(t, 1)[3, 255].item() == pytest.approx(math.sin(999e-4), abs=1e-6)
    assert (sinusoids(t, 1) - sinusoids(t)).abs().max() > 0.5


def test_unpatchify_puts_each_number_where_the_authors_do():
    model = on_meta(preset("DiT-S/2"))
    picture = model.unpatchify(torch.arange(256 * 32).view(1, 256, 32))[0]
    assert picture.shape == (8, 32, 32)
    assert (picture[1, 0, 1], picture[0, 0, 2], picture[0, 2, 0]) == (9, 32, 512)


def test_unpatchify_inverts_the_patch_embeddings_order():
    """Patch (2, 1) of a picture goes into token 2 * side + 1, and that token comes out as patch (2, 1)."""
    model = dit.build(ModelConfig(hidden_size=16, depth=1, num_heads=1, input_size=8, learn_sigma=False))
    picture = torch.zeros(1, 4, 8, 8)
    picture[:, :, 4:6, 2:4] = 1
    used = model.x_embedder(picture)[0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert used == [9]
    tokens = torch.zeros(1, 16, 16)
    tokens[:, 9] = 1
    assert torch.equal(model.unpatchify(tokens), picture)


def test_labels_are_dropped_in_training_only_and_in_the_right_share():
    embedder = LabelEmbedder(10, 4, dropout_prob=0.1)
    labels = torch.arange(20_000) % 10
    null = embedder.embedding_table.weight[10]
    torch.manual_seed(0)
    kept, dropped = embedder.eval()(labels), embedder.train()(labels)
    assert torch.equal(kept, embedder.embedding_table(labels))
    is_null = (dropped == null).all(dim=1)
    assert is_null.float().mean().item() == pytest.approx(0.1, abs=0.01)  # five standard deviations
    assert torch.equal(dropped[~is_null], kept[~is_null])
    assert is_null.view(-1, 10).float().mean(dim=0).min() > 0.05  # of every class


def test_without_dropout_there_is_no_null_row_and_training_drops_nothing():
    embedder = LabelEmbedder(10, 4, dropout_prob=0.0).train()
    labels = torch.arange(1000) % 10
    assert len(embedder.embedding_table.weight) == 10
    assert torch.equal(embedder(labels), embedder.embedding_table(labels))


def test_a_model_in_eval_mode_is_deterministic_and_in_training_is_not(random_model):
    model = random_model(class_dropout_prob=0.5)
    x, t, y = torch.randn(16, 3, 8, 8), torch.full((16,), 7), torch.arange(16) % 10
    assert torch.equal(model(x, t, y), model(x, t, y))
    model.train()
    assert not torch.equal(model(x, t, y), model(x, t, y))


def test_an_unconditional_model_has_no_labels(random_model):
    model = random_model(num_classes=0)
    assert not any("y_embedder" in name for name in model.state_dict())
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    assert torch.equal(model(x, t), model(x, t, torch.tensor([3, 4])))


def test_a_conditional_model_wants_labels(random_model):
    with pytest.raises(ValueError, match="10 classes.*give y"):
        random_model()(torch.randn(2, 3, 8, 8), torch.tensor([1, 2]))


@pytest.mark.parametrize("fields", [{}, {"patch_size": 4, "learn_sigma": False}, {"in_channels": 1}], ids=str)
def test_the_output_depends_on_the_picture_the_timestep_and_the_label(fields, random_model):
    model = random_model(**fields)
    x = torch.randn(2, model.config.in_channels, 8, 8)
    t, y = torch.tensor([10, 500]), torch.tensor([3, 4])
    with torch.no_grad():
        output = model(x, t, y)
        moved = x.clone()
        moved[0, 0, 0, 0] += 1
        for changed in (model(moved, t, y), model(x, t + 1, y), model(x, t, y + 1), model(x, t, y * 0 + 10)):
            assert not torch.allclose(changed[0], output[0], atol=1e-5)
        assert (model(moved, t, y) != output)[0].flatten(1).all()  # attention reaches every pixel
        torch.testing.assert_close(model(moved, t, y)[1], output[1])  # and no other picture


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(random_model):
    model = random_model()
    x, t, y = torch.randn(5, 3, 8, 8), torch.arange(5) * 200, torch.arange(5)
    with torch.no_grad():
        alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(model(x, t, y), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pictures", [1, 4, 5])
def test_sampling_computes_what_training_does(pictures, random_model, monkeypatch):
    monkeypatch.setattr(Mlp, "CACHED_TOKENS", 24)  # 16 a picture: one part, whole parts and a rest
    model = random_model()
    x, t, y = torch.randn(pictures, 3, 8, 8), torch.arange(pictures), torch.arange(pictures) % 10
    with torch.no_grad():
        sampled = model(x, t, y)
    torch.testing.assert_close(sampled, model(x, t, y).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gelu_is_the_tanh_approximation(grad, dtype):
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -1e4, 1e4, -1e-8])]).to(dtype)
    u = x.double()
    expected = (u / 2) * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    with torch.set_grad_enabled(grad):
        rtol = 8e-3 if dtype == torch.bfloat16 else 1e-6  # bfloat16 has 8 bits
        torch.testing.assert_close(gelu(x), expected.to(dtype), atol=1e-6, rtol=rtol)


def test_a_compiled_model_computes_the_same(random_model):
    model = random_model()
    x, t, y = torch.randn(2, 3, 8, 8), torch.arange(2), torch.arange(2)
    compiled = torch.compile(
        model, backend="aot_eager", fullgraph=True
    )  # traced alike, without a C++ compiler
    torch.testing.assert_close(compiled(x, t, y), model(x, t, y), atol=1e-5, rtol=0)


# --- where diffusers' DiT computes otherwise ---


def output_of(model: DiT) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return model(torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([1, 10]))


@pytest.mark.parametrize("fields", [{"frequency_shift": 1}, {"mlp_norm_eps": 1e-2}], ids=str)
def test_each_field_changes_the_output(fields, random_model):
    """The same weights, drawn in the same order."""
    plain, changed = random_model(), random_model(**fields)
    assert list(plain.state_dict()) == list(changed.state_dict())
    assert (output_of(plain) - output_of(changed)).abs().max() > 1e-4


def test_the_epsilon_is_of_the_second_norm_alone(random_model):
    """The first norm, and the last layer's, keep 1e-6 also in diffusers."""
    model, x, c = random_model(mlp_norm_eps=1e9), torch.randn(2, 16, 32), torch.randn(2, 32)
    block = model.blocks[0]
    with torch.no_grad():
        block.adaLN_modulation[1].weight.zero_()
        block.adaLN_modulation[1].bias.copy_(torch.tensor([0.0, 0, 1, 0, 0, 1]).repeat_interleave(32))
        attended = x + block.attn(torch.nn.functional.layer_norm(x, (32,), eps=1e-6))
        nothing = block.mlp(torch.zeros(1, 1, 32))  # all that so large an epsilon leaves
        torch.testing.assert_close(block(x, c), attended + nothing, atol=1e-3, rtol=0)


def test_blocks_that_embed_alike_compute_what_one_embedder_does(random_model):
    model = random_model(depth=3)
    own = DiT(replace(model.config, block_embedders=True)).eval()
    copies = {
        name: model.state_dict()[name.split(".", 2)[2] if name.startswith("embedders.") else name]
        for name in own.state_dict()
    }
    own.load_state_dict(copies, strict=True)
    assert torch.equal(output_of(own), output_of(model))
    for i, embedders in enumerate(own.embedders):  # of the second and the third block
        for name, parameter in embedders.named_parameters():
            kept = parameter.data.clone()
            parameter.data.add_(0.1)
            assert not torch.allclose(output_of(own), output_of(model), atol=1e-5), (i, name)
            parameter.data.copy_(kept)


def test_own_embedders_start_as_the_authors_do():
    torch.manual_seed(0)
    model = dit.build("DiT-N/8", num_classes=100, block_embedders=True)
    assert len(model.embedders) == 3
    for embedders in model.embedders:
        for normal in (embedders.t_embedder.mlp[0], embedders.t_embedder.mlp[2]):
            assert normal.weight.std().item() == pytest.approx(0.02, rel=0.1) and (normal.bias == 0).all()
        assert embedders.y_embedder.embedding_table.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_and_give_float32(dtype, random_model):
    for fields in ({}, {"block_embedders": True, "num_classes": 11, "class_dropout_prob": 0.0}):
        model = random_model(**fields)
        expected = output_of(model)
        output = output_of(model.to(dtype))
        assert output.dtype == torch.float32
        assert 0 < (output - expected).square().mean().sqrt() < 0.1 * expected.std()
