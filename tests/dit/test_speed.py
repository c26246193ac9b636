"""The measured cost of a forward pass."""

import pytest

from dit.pipeline import Pipeline
from dit.speed import Speed, measure_speed


@pytest.fixture(scope="module")
def pipeline(random_model):
    return Pipeline(random_model())


def test_measured_speed_is_positive(pipeline):
    speed = measure_speed(pipeline, batches=(1, 64), repeats=2)
    assert speed.per_picture > 0 and speed.overhead >= 0
    assert (
        speed.seconds(passes=10, pictures=64, calls=10) > speed.seconds(passes=10, pictures=1, calls=10) > 0
    )


def test_speed_is_measured_without_labels_too(random_model):
    assert measure_speed(Pipeline(random_model(num_classes=0)), batches=(1, 4), repeats=1).per_picture > 0


def test_expected_seconds():
    """Overhead for each network call, and the time of each picture for each of its passes."""
    speed = Speed(overhead=0.5, per_picture=0.01)
    assert speed.seconds(passes=100, pictures=4, calls=50) == pytest.approx(50 * 0.5 + 100 * 4 * 0.01)


def test_the_fit_of_speed_recovers_a_linear_cost(pipeline, monkeypatch):
    """A clock that knows what a batch costs: 0.25 s, and 0.125 s a picture."""
    now, model = 0.0, pipeline.model

    class Timed:
        config = model.config

        def __call__(self, x, t, y):
            nonlocal now
            now += 0.25 + 0.125 * len(x)
            return model(x, t, y)

    monkeypatch.setattr("dit.speed.time.perf_counter", lambda: now)
    monkeypatch.setattr(pipeline, "model", Timed())
    assert measure_speed(pipeline, batches=(2, 6)) == Speed(overhead=0.25, per_picture=0.125)
