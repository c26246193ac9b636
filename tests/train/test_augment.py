"""EDM's augmentation: the labels say what was done, and what was not warped stays bit for bit."""

import dataclasses
import math

import pytest
import torch

from train.augment import Warps, augment


def pictures(n: int, side: int = 16) -> torch.Tensor:
    """Smooth pictures, so that resampling errs little."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic", align_corners=False)


def drawn(x: torch.Tensor, probability: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures x, warped at random, and the labels."""
    return augment(x, Warps.draw(len(x), probability))


def test_without_warps_pictures_are_mirrored_at_most_and_the_labels_say_which():
    torch.manual_seed(0)
    x = pictures(200)
    warped, labels = drawn(x, 0.0)
    assert labels.shape == (200, 9) and not labels[:, 1:].any()
    mirrored = labels[:, 0].bool()
    assert 70 < mirrored.sum() < 130
    assert torch.equal(warped[mirrored], x[mirrored].flip(-1)) and torch.equal(
        warped[~mirrored], x[~mirrored]
    )


def test_each_warp_comes_as_often_as_asked_for():
    torch.manual_seed(0)
    _, labels = drawn(pictures(4000, side=8), 0.3)
    present = (labels != 0).float().mean(dim=0)
    # upside down: half of those chosen; turned and moved: two numbers each; stretched: both or one of two
    for column, share in ((1, 0.15), (2, 0.3), (3, 0.3), (4, 0.3), (5, 0.3), (7, 0.3), (8, 0.3)):
        assert present[column] == pytest.approx(share, abs=0.03), column
    assert present[6] == pytest.approx(0.15, abs=0.03)
    assert labels[labels[:, 2] != 0][:, 2].std() == pytest.approx(1, abs=0.1)


def test_what_is_not_warped_stays_as_it_is():
    torch.manual_seed(1)
    x = pictures(300)
    warped, labels = drawn(x, 0.1)
    plain = ~labels[:, 1:].any(dim=1)
    assert 100 < plain.sum() < 260
    expected = torch.where(labels[:, 0].bool().view(-1, 1, 1, 1), x.flip(-1), x)
    assert torch.equal(warped[plain], expected[plain])
    assert all((a != b).any() for a, b in zip(warped[~plain], expected[~plain], strict=True))


def disc(side: int = 32) -> torch.Tensor:
    """A picture of a soft disc, 4 pixels to the right of the middle."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (-((rows - 15.5) ** 2 + (columns - 19.5) ** 2) / 8).exp().expand(1, 1, side, side).clone()


def moments(x: torch.Tensor) -> tuple[float, float, float, float]:
    """Centre (row, column) of a picture's brightness, and its spread (down, across)."""
    weights, places = x[0, 0].clamp(min=0), torch.arange(x.shape[-1]).float()
    weights = weights / weights.sum()
    centre = [float((weights.sum(axis) * places).sum()) for axis in (1, 0)]
    spread = [
        float((weights.sum(axis) * (places - middle) ** 2).sum().sqrt())
        for axis, middle in zip((1, 0), centre, strict=True)
    ]
    return (*centre, *spread)


def warp(**fields: float | list[float]) -> Warps:
    """A warp of one picture that is all zero but for some fields."""
    zero = dict.fromkeys((field.name for field in dataclasses.fields(Warps)), 0.0) | {"moved": [0.0, 0.0]}
    return Warps(**{name: torch.tensor([value]) for name, value in (zero | fields).items()})


WHOLE = math.log2(1.25) / 0.2  # a quarter larger


@pytest.mark.parametrize(
    ("fields", "labels", "expected"),
    [
        ({}, {}, (15.5, 19.5, 2, 2)),
        ({"mirrored": 1.0}, {0: 1}, (15.5, 11.5, 2, 2)),
        ({"upturned": 1.0, "moved": [0.0, 1.0]}, {1: 1, 8: 1}, (19.5, 19.5, 2, 2)),
        ({"scaled": WHOLE}, {2: WHOLE}, (15.5, 20.5, 2.5, 2.5)),  # about the middle of the picture
        ({"turned": math.pi / 2}, {3: -1, 4: 1}, (11.5, 15.5, 2, 2)),  # counter-clockwise: from right to top
        # Turned first, then stretched across: not the other way round.
        ({"turned": math.pi / 2, "stretched": WHOLE}, {3: -1, 4: 1, 5: WHOLE}, (12.3, 15.5, 1.6, 2.5)),
        ({"scaled": WHOLE, "moved": [-1.0, 0.0]}, {2: WHOLE, 7: -1}, (15.5, 16.5, 2.5, 2.5)),
        ({"stretched": WHOLE}, {5: WHOLE}, (15.5, 20.5, 1.6, 2.5)),
        ({"stretched": WHOLE, "along": math.pi / 2}, {6: WHOLE}, (15.5, 18.7, 2.5, 1.6)),
        ({"moved": [-1.0, 0.5]}, {7: -1, 8: 0.5}, (17.5, 15.5, 2, 2)),
    ],
    ids=str,
)
def test_each_warp_does_what_its_label_says(fields, labels, expected):
    one = warp(**fields)
    told = [labels.get(i, 0.0) for i in range(9)]
    assert one.labels()[0].tolist() == pytest.approx(told, abs=1e-6)
    assert moments(one.apply(disc())) == pytest.approx(expected, abs=0.25)


def test_a_warp_and_its_opposite_leave_the_picture():
    x = pictures(1, 32)
    there = warp(turned=0.4, moved=[0.3, -0.2]).apply(x)
    back = warp(moved=[-0.3, 0.2]).apply(there)
    back = warp(turned=-0.4).apply(back)
    inner = (..., slice(8, 24), slice(8, 24))
    assert (there - x)[inner].abs().mean() > 0.1 and (back - x)[inner].abs().mean() < 0.03


def test_a_generator_decides_all_of_it():
    def told(seed: int) -> torch.Tensor:
        return Warps.draw(20, 0.5, torch.Generator().manual_seed(seed)).labels()

    state = torch.get_rng_state()
    assert torch.equal(told(1), told(1)) and not torch.equal(told(1), told(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_some_of_the_warps_do_what_all_of_them_do_to_these_pictures():
    x, warps = pictures(20), Warps.draw(20, 0.5)
    warped, labels = augment(x, warps)
    some, told = augment(x[5:9], warps.of(slice(5, 9)))
    torch.testing.assert_close(some, warped[5:9])
    assert torch.equal(told, labels[5:9])


def test_half_precision_does_not_warp_otherwise():
    torch.manual_seed(4)
    x = pictures(30)
    expected, labels = drawn(x, 0.9)
    torch.manual_seed(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped, same = drawn(x, 0.9)
    assert torch.equal(warped, expected) and torch.equal(labels, same)
