"""The walk over a set: each picture once an epoch, whatever the batch, and wherever it is joined."""

import numpy as np
import pytest

from train import order
from train.order import Order


def walk(order: Order, pictures: int) -> np.ndarray:
    """The first so many pictures of a walk."""
    steps = -(-pictures // order.batch_size)
    return np.concatenate([order.indices(step) for step in range(steps)])[:pictures]


@pytest.mark.parametrize("n", [1, 2, 7, 40, 101])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 40, 250])
@pytest.mark.parametrize("parts", [None, 1, 5])
def test_each_picture_is_seen_once_an_epoch(n, batch_size, parts):
    blocks = parts and np.array([len(part) for part in np.array_split(np.arange(n), parts) if len(part)])
    seen = walk(Order(n, batch_size, 0, blocks), 4 * n).reshape(4, n)
    assert seen.dtype == np.int64
    for epoch in seen:
        assert sorted(epoch) == list(range(n))
    assert n < 40 or len({tuple(epoch) for epoch in seen}) == 4


def test_the_walk_does_not_depend_on_the_batch():
    walks = [walk(Order(43, batch_size, 5), 200).tolist() for batch_size in (1, 8, 43, 64)]
    assert walks == [walks[0]] * 4


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_processes_that_share_a_step_see_together_what_one_sees(world):
    alone, share = Order(43, 16, 0), 16 // world
    ranks = [Order(43, 16, 0) for _ in range(world)]
    for step in range(9):
        rows = [rank.indices(step)[r * share : (r + 1) * share] for r, rank in enumerate(ranks)]
        assert np.concatenate(rows).tolist() == alone.indices(step).tolist()


@pytest.mark.parametrize("blocks", [None, np.array([10, 10, 10, 13])])
def test_a_step_is_the_same_from_wherever_the_walk_is_joined(blocks):
    throughout = Order(43, 8, 3, blocks)
    expected = [throughout.indices(step).tolist() for step in range(30)]
    for step in (29, 5, 6, 17, 0):
        assert Order(43, 8, 3, blocks).indices(step).tolist() == expected[step]
        assert throughout.indices(step).tolist() == expected[step]  # backwards as well


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(walk(Order(40, 40, seed), 120)[40 * e : 40 * e + 40]) for seed in (0, 1) for e in range(3)
    }
    assert len(orders) == 6 and tuple(range(40)) not in orders


def test_blocks_are_read_a_window_at_a_time_and_mixed_within(monkeypatch):
    monkeypatch.setattr(order, "WINDOW", 4)
    blocks = np.full(12, 10)
    epochs = walk(Order(120, 40, 0, blocks), 240).reshape(2, 3, 40)
    for epoch in epochs:
        windows = [sorted({int(picture) // 10 for picture in window}) for window in epoch]
        assert [len(window) for window in windows] == [4, 4, 4]
        assert sorted(sum(windows, [])) == list(range(12))
        for window in epoch:  # pictures of different blocks follow each other
            assert sum(np.diff(window // 10) != 0) > 15
    assert {*epochs[0][0] // 10} != {*epochs[1][0] // 10}


def test_a_permutation_is_made_once_for_all_steps_of_its_epoch(monkeypatch):
    made = []
    shuffled = Order._shuffled
    monkeypatch.setattr(Order, "_shuffled", lambda self, g: made.append(1) or shuffled(self, g))
    source = Order(43, 8, 0)
    for step in range(11):  # 88 places: epochs 0, 1 and the beginning of 2
        source.indices(step)
    assert len(made) == 3
    source.indices(10), source.indices(9)  # the last two epochs are still known
    assert len(made) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 0), "num_pictures is 0"),
        ((8, 0, 0), "batch_size 0"),
        ((8, 2, 0, np.array([3, 4])), "blocks hold 7 pictures; they must hold all 8"),
    ],
)
def test_what_cannot_be_walked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Order(*arguments)
