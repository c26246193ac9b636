"""DiffiT on pixels: windows, the U that joins them, and labels of augmentations."""

import pytest
import torch
from torch import nn

import dit
from dit.diffit import TMSA, DiffiTBlock
from dit.diffit_image import from_windows, group_norm, to_windows
from dit.models import network
from tests.networks import EDM_IMAGE, TINY, inputs, perturb, tiny


@pytest.mark.parametrize(("side", "window"), [(4, 2), (6, 3), (6, 2), (8, 8), (8, 1)])
def test_windows_go_row_by_row_and_so_do_the_pixels_of_each(side, window):
    x = torch.randn(2, 3, side, side)
    tokens, count = to_windows(x, window), side // window
    assert tokens.shape == (2 * count**2, window**2, 3)
    for n in range(2):
        for row in range(side):
            for column in range(side):
                at = n * count**2 + (row // window) * count + column // window
                place = (row % window) * window + column % window
                assert torch.equal(tokens[at, place], x[n, :, row, column])
    assert torch.equal(from_windows(tokens, window, side), x)


@pytest.mark.parametrize("window", [1, 2, 4, 8])
def test_tokens_survive_the_way_to_a_picture_and_back(window):
    tokens = torch.randn(2 * (8 // window) ** 2, window**2, 5)
    picture = from_windows(tokens, window, 8)
    assert picture.shape == (2, 5, 8, 8)
    assert torch.equal(to_windows(picture, window), tokens)


def test_windows_of_memory_laid_out_channels_last():
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(to_windows(x.to(memory_format=torch.channels_last), 4), to_windows(x, 4))


def test_a_block_lets_nothing_out_of_a_window():
    torch.manual_seed(0)
    block = DiffiTBlock(8, 6, 2, window=4, mlp_ratio=2.0)
    for parameter in block.parameters():
        parameter.data.normal_(std=0.3)
    x, c = torch.randn(2, 8, 8, 8), torch.randn(2, 6)
    moved = x.clone()
    moved[0, :, 1, 6] += torch.randn(8)  # in the first picture's window on the upper right
    with torch.no_grad():
        before, after = (from_windows(block(to_windows(p, 4), c), 4, 8) for p in (x, moved))
    changed = ((before - after).abs().amax(dim=1) > 1e-6).tolist()
    expected = [[[n == 0 and row < 4 <= column for column in range(8)] for row in range(8)] for n in range(2)]
    assert changed == expected


@pytest.mark.parametrize(("channel_mult", "far"), [((1,), False), ((1, 1), True)], ids=str)
def test_windows_meet_where_the_u_is_coarser(channel_mult, far, random_model):
    """Without group norms, which look at the whole picture, convolutions alone lead out of a window of 4."""
    model = random_model(**(TINY["diffit-image"] | {"channel_mult": channel_mult, "depth": 1}))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    x, t, y = inputs(model.config)
    moved = x.clone()
    moved[0, :, 0, 0] += 1
    with torch.no_grad():
        changed = (model(moved, t, y) - model(x, t, y)).abs().amax(dim=1) > 1e-6
    assert changed[0, 0, 0] and not changed[1].any()
    assert changed[0, :5, :5].all()  # the window, and what the last convolution makes of it
    assert changed[0, 7, 7].item() is far


def test_stages_skips_and_heads():
    """Widths follow the stages; heads keep theirs; the bottleneck is no part of the way up."""
    model = network(tiny("diffit-image", channel_mult=(1, 2, 3), window_size=2, depth=3))
    down, up = (
        [(len(stage), stage[0].conv.weight.shape[0], stage[0].block.attn.num_heads) for stage in way]
        for way in (model.down, model.up)
    )
    assert down == [(3, 32, 2), (3, 64, 4), (3, 96, 6)]
    assert up == [(3, 64, 4), (3, 32, 2)]
    assert [merge.weight.shape[:2] for merge in model.merge] == [(64, 128), (32, 64)]
    assert [tuple(conv.stride) for conv in model.downsample] == [(2, 2)] * 2
    assert all(block.block.attn.qkv_temb.in_features == 128 for stage in model.down for block in stage)


def test_each_stage_on_the_way_up_is_joined_with_what_its_mirror_image_left(random_model):
    """What comes from below first; stages are as wide as each other, so that an exchange would fit."""
    model = random_model(**(TINY["diffit-image"] | {"channel_mult": (1, 1, 1), "window_size": 2}))
    left, below, joined = {}, {}, {}
    for i in range(2):
        model.down[i][-1].register_forward_hook(lambda _, given, out, i=i: left.update({i: out}))
        model.upsample[i].register_forward_hook(lambda _, given, out, i=i: below.update({i: out}))
        model.merge[i].register_forward_hook(lambda _, given, out, i=i: joined.update({i: given[0]}))
    with torch.no_grad():
        output = model(*inputs(model.config))
        for i in range(2):
            assert torch.equal(joined[i], torch.cat([below[i], left[1 - i]], dim=1))
            model.merge[i].weight[:, 32:] = 0
            assert not torch.allclose(model(*inputs(model.config)), output, atol=1e-4)


@pytest.mark.parametrize(("width", "groups"), [(4, 1), (32, 8), (64, 16), (128, 32), (256, 32)])
def test_group_norms_have_edms_groups(width, groups):
    assert group_norm(width).num_groups == groups


def test_bias_tables_start_small_and_random():
    torch.manual_seed(0)
    model = dit.build(tiny("diffit-image", input_size=16, window_size=8, hidden_size=64, num_heads=8))
    tables = [part.relative_position_bias_table for part in model.modules() if isinstance(part, TMSA)]
    assert [len(table) for table in tables] == [225] * 6
    for table in tables:  # 225 * 8 numbers, and twice as many further in
        assert table.std().item() == pytest.approx(0.02, rel=0.1)


def test_convolutions_start_as_xavier_says():
    torch.manual_seed(0)
    model = dit.build(tiny("diffit-image", hidden_size=64))
    for conv in (model.tokenizer, model.down[0][0].conv, model.downsample[0], model.merge[0]):
        (out, of), area = conv.weight.shape[:2], conv.weight[0, 0].numel()
        bound = (6 / ((out + of) * area)) ** 0.5
        assert 0.97 * bound < conv.weight.abs().max() <= bound
        assert (conv.bias == 0).all()


def test_no_res_block_starts_as_the_identity():
    torch.manual_seed(0)
    model = dit.build(tiny("diffit-image"))
    for stage, width, side in ((model.down[0], 32, 8), (model.down[1], 64, 4), (model.up[0], 32, 8)):
        for block in stage:
            x = torch.randn(2, width, side, side)
            assert (block(x, torch.randn(2, 128)) - x).abs().mean() > 0.05


# --- augmentation labels ---


def test_augmentation_labels_are_heard_and_zero_means_none(random_model):
    model = random_model(**EDM_IMAGE)
    x, t, y = inputs(model.config)
    t = t / 1000.0  # an EDM model's are ln(sigma) / 4
    with torch.no_grad():
        plain = model(x, t, y)
        assert torch.equal(model(x, t, y, torch.zeros(2, 9)), plain)
        for i in range(9):
            labels = torch.zeros(2, 9)
            labels[0, i] = 1
            augmented = model(x, t, y, labels)
            assert (augmented[0] - plain[0]).abs().max() > 1e-3, i
            torch.testing.assert_close(augmented[1], plain[1])


def test_without_augmentation_there_are_no_weights_for_it():
    assert not any("augment" in name for name in network(tiny("diffit-image")).state_dict())
    weights = network(tiny("diffit-image", **EDM_IMAGE)).state_dict()
    assert weights["augment_embedder.weight"].shape == (128, 9)


def test_noise_levels_that_are_no_whole_numbers_are_told_apart():
    """c_noise of EDM is ln(sigma) / 4: from about -1.6 to 1.1."""
    torch.manual_seed(0)
    model = dit.build(tiny("diffit-image", **EDM_IMAGE)).eval()
    perturb(model)
    x, _, y = inputs(model.config)
    with torch.no_grad():
        outputs = [model(x, torch.full((2,), noise), y) for noise in (-1.6, -1.5, 0.0, 0.1, 1.1)]
    for one, other in zip(outputs, outputs[1:], strict=False):
        assert (one - other).abs().max() > 1e-4


def test_dropout_acts_in_training_alone(random_model):
    model = random_model(**TINY["diffit-image"], dropout=0.5, num_classes=0)
    x, t, _ = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(model(x, t), model(x, t))
        model.train()
        assert not torch.equal(model(x, t), model(x, t))
