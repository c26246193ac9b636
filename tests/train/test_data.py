"""Training data: drawn once, seen once an epoch, in an order that depends on seed and step alone."""

import numpy as np
import pytest
import torch

from train import data, solids
from train.data import SolidsData, solids_cache


def make(num_pictures: int = 40, seed: int = 0, batch_size: int = 8, flip: bool = False) -> SolidsData:
    return SolidsData(num_pictures, 16, seed, batch_size, flip)


@pytest.fixture
def rendered(monkeypatch) -> list[int]:
    """How many pictures each call of the renderer drew."""
    counts, render = [], solids.render

    def counting(indices, *arguments, **settings):
        counts.append(len(indices))
        return render(indices, *arguments, **settings)

    monkeypatch.setattr(solids, "render", counting)
    return counts


# --- order ---


def test_each_picture_is_seen_once_an_epoch():
    source = make()
    for epoch in range(3):
        seen = np.concatenate([source.indices(5 * epoch + step) for step in range(5)])
        assert sorted(seen) == list(range(40))


def test_the_rest_of_an_epoch_is_left_out_and_another_one_each_time():
    source = make(num_pictures=43)
    epochs = [np.concatenate([source.indices(5 * epoch + step) for step in range(5)]) for epoch in range(3)]
    left_out = [set(range(43)) - set(seen) for seen in epochs]
    assert all(len(set(seen)) == 40 for seen in epochs)
    assert left_out[0] != left_out[1] != left_out[2]


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(source: SolidsData, epoch: int) -> list[int]:
        return np.concatenate([source.indices(5 * epoch + step) for step in range(5)]).tolist()

    orders = [order(make(seed=seed), epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(o) for o in orders}) == 6
    assert orders[0] != sorted(orders[0])


def test_a_batch_is_a_function_of_seed_and_step_not_of_history():
    one, other = make(flip=True), make(flip=True)
    for step in range(13):  # one walks there, the other jumps
        x0, y = one.batch(step)
    for step in (40, 3, 12):
        again, labels = other.batch(step)
    assert torch.equal(x0, again) and torch.equal(y, labels)


# --- batches ---


def test_a_batch_is_the_pictures_in_order_scaled_with_their_labels():
    source = make()
    indices = source.indices(3)
    x0, y = source.batch(3)
    pictures, labels = solids.render(indices, 0, 16)
    assert x0.shape == (8, 3, 16, 16) and x0.dtype == torch.float32 and x0.is_contiguous()
    assert y.dtype == torch.int64 and y.tolist() == labels.tolist()
    expected = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(x0, expected)
    assert -1 <= x0.min() < -0.3 and 0.3 < x0.max() <= 1


def test_pixels_0_and_255_are_minus_1_and_1(monkeypatch):
    source = make()
    source.pictures = np.zeros((40, 16, 16, 3), np.uint8)
    source.pictures[:, :8] = 255
    x0, _ = source.batch(0)
    assert (x0[:, :, :8] == 1).all() and (x0[:, :, 8:] == -1).all()


def test_about_half_of_the_pictures_are_mirrored_left_to_right():
    plain, mirrored = make(batch_size=40), make(batch_size=40, flip=True)
    count, patterns = 0, set()
    for step in range(10):
        (x0, y), (flipped, labels) = plain.batch(step), mirrored.batch(step)
        assert torch.equal(y, labels)
        was = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, x0, strict=True)]
        assert all(w or torch.equal(a, b) for w, a, b in zip(was, flipped, x0, strict=True))
        count += sum(was)
        patterns.add(tuple(was))
    assert 150 < count < 250 and len(patterns) == 10


# --- cache ---


def test_pictures_are_drawn_once(cache, rendered, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 7)
    first = np.array(solids_cache(20, 16, seed=0))
    assert rendered == [7, 7, 6]
    again = solids_cache(20, 16, seed=0)
    assert rendered == [7, 7, 6]
    assert (again == first).all() and not again.flags.writeable
    assert (first == solids.render(range(20), 0, 16)[0]).all()
    assert len(list(cache.glob("[!.]*"))) == 1


def test_other_pictures_are_another_file(cache):
    for arguments in ((20, 16, 0), (20, 24, 0), (21, 16, 0), (20, 16, 1)):
        assert solids_cache(*arguments).shape == (arguments[0], arguments[1], arguments[1], 3)
    assert len(list(cache.glob("[!.]*"))) == 4


def test_another_version_of_the_renderer_is_another_file(cache, monkeypatch):
    solids_cache(20, 16, 0)
    monkeypatch.setattr(solids, "VERSION", "next")
    solids_cache(20, 16, 0)
    assert len(list(cache.glob("[!.]*"))) == 2


def test_the_training_seed_changes_the_order_not_the_pictures(cache):
    assert (make(seed=0).pictures == make(seed=5).pictures).all()
    assert len(list(cache.glob("[!.]*"))) == 1


def test_a_drawing_that_fails_leaves_nothing_and_is_begun_again(cache, monkeypatch):
    render, calls = solids.render, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(data, "CHUNK", 10)
    monkeypatch.setattr(solids, "render", failing)
    with pytest.raises(KeyboardInterrupt):
        solids_cache(20, 16, 0)
    assert list(cache.glob("[!.]*")) == []
    assert (solids_cache(20, 16, 0) == render(range(20), 0, 16)[0]).all()


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DITLAB_CACHE", str(tmp_path))
    assert data.cache_dir() == tmp_path
    for unset in ("", None):
        monkeypatch.setenv("DITLAB_CACHE", "") if unset == "" else monkeypatch.delenv("DITLAB_CACHE")
        assert data.cache_dir().parts[-2:] == (".cache", "dit-lab")
