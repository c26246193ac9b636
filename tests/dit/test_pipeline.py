"""From settings to pictures: each picture its own, every frame and pass counted, stopping stops."""

import re

import numpy as np
import pytest
import torch

import dit
from dit.diffusion import timesteps
from dit.pipeline import MAX_SEED, Pipeline, SampleSettings, Speed, measure_speed, to_pictures
from dit.samplers import SAMPLERS


@pytest.fixture(scope="module")
def pipeline(random_model):
    return Pipeline(random_model())


def settings(**fields) -> SampleSettings:
    return SampleSettings(**({"classes": [3, 7], "seeds": [5, 6], "steps": 4} | fields))


@pytest.fixture
def calls(pipeline):
    """The batch sizes of the model's forward passes."""
    sizes = []
    handle = pipeline.model.register_forward_hook(lambda model, inputs, output: sizes.append(len(inputs[0])))
    yield sizes
    handle.remove()


# --- pictures ---


@pytest.mark.parametrize(("sampler", "eta"), [*((name, 0.0) for name in SAMPLERS), ("ddim", 1.0)])
def test_a_picture_does_not_depend_on_its_batch(sampler, eta, pipeline):
    """Up to 1 of 255: a matrix product may add up in another order when the batch has another size."""
    classes, seeds = [0, 1, 2, 3, 3, 9, 9, 0], [10, 11, 12, 13, 14, 15, 10, 2**63 - 1]

    def draw(batch: int) -> np.ndarray:
        parts = [slice(start, start + batch) for start in range(0, 8, batch)]
        fields = {"steps": 6, "guidance_scale": 1.5, "sampler": sampler, "eta": eta}
        return np.concatenate(
            [
                pipeline.generate(settings(classes=classes[part], seeds=seeds[part], **fields)).x0
                for part in parts
            ]
        ).astype(int)

    whole = draw(8)
    assert abs(draw(1) - whole).max() <= 1 and abs(draw(3) - whole).max() <= 1
    assert abs(whole[3] - whole[4]).max() > 20  # the seed matters
    assert abs(whole[0] - whole[6]).max() > 20  # the class too, for the same seed


def test_the_same_settings_draw_the_same_pictures(pipeline):
    torch.manual_seed(1)
    one = pipeline.generate(settings(sampler="ddpm"))
    torch.manual_seed(2)
    two = pipeline.generate(settings(sampler="ddpm"))
    assert (one.x0 == two.x0).all() and (one.x_t == two.x_t).all()


def test_drawing_leaves_the_global_generator_alone(pipeline):
    before = torch.get_rng_state()
    pipeline.generate(settings(sampler="ddpm"))
    pipeline.generate(settings(eta=1.0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_noise_is_the_seeds(pipeline):
    """One draw of a CPU generator: what any other program would draw from the seed."""
    seen = []
    handle = pipeline.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0].clone()))
    pipeline.generate(settings(seeds=[5, 2**40], steps=1))
    handle.remove()
    for noise, seed in zip(seen[0], (5, 2**40), strict=True):
        assert torch.equal(noise, torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("field", "value"), [("eta", 0.5), ("guided_channels", 1), ("guidance_interval", (0, 500))]
)
def test_settings_reach_the_sampler(field, value, pipeline):
    plain = pipeline.generate(settings(guidance_scale=4.0)).x0
    assert (plain != pipeline.generate(settings(guidance_scale=4.0, **{field: value})).x0).any()


def test_pixels_are_clamped_and_nan_is_black():
    x = torch.tensor([-5.0, -1.0, 0.0, 0.5, 1.0, 5.0, float("nan"), float("inf")]).view(1, 1, 2, 4)
    pictures = to_pictures(x)
    assert pictures.shape == (1, 2, 4, 3) and pictures.dtype == np.uint8
    assert pictures[0, :, :, 0].tolist() == [[0, 0, 128, 191], [255, 255, 0, 255]]


def test_pixels_survive_the_way_there_and_back():
    pixels = torch.arange(256)
    assert (to_pictures((pixels / 127.5 - 1).view(1, 1, 16, 16))[0, ..., 0].ravel() == pixels.numpy()).all()


def test_channels_rows_and_columns_keep_their_places():
    x = torch.full((2, 3, 4, 5), -1.0)
    x[1, 2, 3, 0] = 1
    pictures = to_pictures(x)
    assert pictures.shape == (2, 4, 5, 3) and np.argwhere(pictures).tolist() == [[1, 3, 0, 2]]
    assert pictures.flags.c_contiguous


def test_a_grey_model_gives_rgb_frames(random_model):
    frame = Pipeline(random_model(in_channels=1)).generate(settings())
    assert frame.x0.shape == frame.x_t.shape == (2, 8, 8, 3)
    assert (frame.x0[..., 0] == frame.x0[..., 1]).all() and (frame.x0[..., 1] == frame.x0[..., 2]).all()
    assert frame.x0.std() > 0


def test_latents_are_no_pictures(random_model):
    with pytest.raises(ValueError, match="4 channels.*autoencoder"):
        Pipeline(random_model(in_channels=4))


def test_an_unconditional_model_ignores_the_classes(random_model):
    pipeline = Pipeline(random_model(num_classes=0))
    one, two = (pipeline.generate(settings(classes=classes)) for classes in ([3, 7], [800, -1]))
    assert (one.x0 == two.x0).all()
    with pytest.raises(ValueError, match="num_classes 0"):
        pipeline.stream(settings(guidance_scale=2.0))


def test_the_model_is_put_into_evaluation_mode(random_model):
    pipeline = Pipeline(random_model(class_dropout_prob=0.9).train())
    assert not pipeline.model.training


# --- frames and costs ---


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_frame_a_step(sampler, steps, pipeline):
    frames = list(pipeline.stream(settings(steps=steps, sampler=sampler)))
    assert [frame.index for frame in frames] == list(range(steps))
    assert [frame.t for frame in frames] == timesteps(steps).flip(0).tolist()
    assert {frame.steps for frame in frames} == {steps}
    for frame in frames:
        assert frame.x0.shape == frame.x_t.shape == (2, 8, 8, 3)
        assert frame.x0.dtype == frame.x_t.dtype == np.uint8
    assert (frames[-1].x0 == frames[-1].x_t).all()
    seconds = [frame.seconds for frame in frames]
    assert seconds == sorted(seconds) and seconds[0] > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, [1] * 5),
        ({"guidance_scale": 3.0}, [2] * 5),
        ({"guidance_scale": 0.0}, [2] * 5),
        # steps at t = 999, 749, 500, 250, 0
        ({"guidance_scale": 3.0, "guidance_interval": (250, 700)}, [1, 1, 2, 2, 1]),
    ],
    ids=str,
)
def test_the_cost_is_that_of_the_passes_that_ran(sampler, fields, passes, pipeline, calls):
    wish = settings(steps=5, sampler=sampler, **fields)
    spent = [frame.macs for frame in pipeline.stream(wish)]
    assert calls == [2 * n for n in passes]
    one = 2 * dit.macs(pipeline.model.config)
    assert spent == [one * sum(passes[: i + 1]) for i in range(5)]
    assert pipeline.passes(wish) == sum(passes)


def test_nothing_runs_before_the_first_frame_between_frames_or_after_closing(pipeline, calls):
    stream = pipeline.stream(settings(steps=50))
    assert calls == []
    next(stream), next(stream)
    assert len(calls) == 2
    stream.close()
    assert len(calls) == 2 and list(stream) == []


def test_time_between_frames_is_not_counted(pipeline, monkeypatch):
    """A clock that stands still while the network runs and jumps between frames."""
    now = 100.0
    monkeypatch.setattr("dit.pipeline.time.perf_counter", lambda: now)
    stream = pipeline.stream(settings())
    for frame in stream:
        assert frame.seconds == 0
        now += 1000


def test_the_caller_does_not_inherit_inference_mode(pipeline):
    stream = pipeline.stream(settings())
    next(stream)
    assert not torch.is_inference_mode_enabled()
    assert (torch.ones(1, requires_grad=True) * 2).requires_grad
    stream.close()


# --- settings ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": [1]}, "1 classes and 2 seeds"),
        ({"classes": [], "seeds": []}, "0 classes and 0 seeds"),
        ({"seeds": [1, -1]}, "seed is -1"),
        ({"seeds": [1, MAX_SEED + 1]}, f"seed is {MAX_SEED + 1}.*{MAX_SEED}"),
        ({"steps": 0}, "steps is 0.*from 1 to 1000"),
        ({"steps": 1001}, "steps is 1001.*from 1 to 1000"),
        ({"sampler": "euler"}, "'euler'.*ddim, dpm-solver.*ddpm"),
        ({"eta": 0.5, "sampler": "ddpm"}, "eta is 0.5.*ddpm"),
        ({"eta": 0.5, "sampler": "dpm-solver++"}, "eta is 0.5"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"eta": -0.5}, "eta is -0.5"),
        ({"eta": float("nan")}, "eta is nan"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_and_named(fields, said):
    with pytest.raises(ValueError, match=said):
        settings(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": [1, 2.0]}, "class must be a whole number, not 2.0"),
        ({"classes": [1, True]}, "class must be a whole number, not True"),
        ({"seeds": [1, "2"]}, "seed must be a whole number, not '2'"),
        ({"seeds": [1, None]}, "seed must be a whole number, not None"),
        ({"steps": 4.0}, "steps must be a whole number, not 4.0"),
        ({"steps": True}, "steps must be a whole number, not True"),
    ],
    ids=str,
)
def test_numbers_that_are_not_whole_are_refused(fields, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        settings(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": [3, 10]}, "class is 10.*0 to 9"),
        ({"classes": [-1, 3]}, "class is -1.*0 to 9"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guided_channels": 4}, "guided channels is 4"),
        ({"guidance_interval": (5, 4)}, r"\(5, 4\)"),
    ],
    ids=str,
)
def test_what_the_model_cannot_serve_is_refused_before_the_first_frame(fields, said, pipeline):
    with pytest.raises(ValueError, match=said):
        pipeline.stream(settings(**fields))


def test_numpys_numbers_are_numbers(pipeline):
    plain = pipeline.generate(settings()).x0
    wish = settings(classes=np.array([3, 7]).tolist(), seeds=list(np.array([5, 6])), steps=np.int64(4))
    assert (pipeline.generate(wish).x0 == plain).all()


# --- speed ---


def test_measured_speed_is_positive(pipeline):
    speed = measure_speed(pipeline, batches=(1, 64), repeats=2)
    assert speed.per_picture > 0 and speed.overhead >= 0
    assert (
        speed.seconds(passes=10, pictures=64, steps=10) > speed.seconds(passes=10, pictures=1, steps=10) > 0
    )


def test_speed_is_measured_without_labels_too(random_model):
    assert measure_speed(Pipeline(random_model(num_classes=0)), batches=(1, 4), repeats=1).per_picture > 0


def test_expected_seconds():
    """Overhead for each network call, and the time of each picture for each of its passes."""
    speed = Speed(overhead=0.5, per_picture=0.01)
    assert speed.seconds(passes=100, pictures=4, steps=50) == pytest.approx(50 * 0.5 + 100 * 4 * 0.01)


def test_the_fit_of_speed_recovers_a_linear_cost(pipeline, monkeypatch):
    """A clock that knows what a batch costs: 0.25 s, and 0.125 s a picture."""
    now, model = 0.0, pipeline.model

    class Timed:
        config = model.config

        def __call__(self, x, t, y):
            nonlocal now
            now += 0.25 + 0.125 * len(x)
            return model(x, t, y)

    monkeypatch.setattr("dit.pipeline.time.perf_counter", lambda: now)
    monkeypatch.setattr(pipeline, "model", Timed())
    assert measure_speed(pipeline, batches=(2, 6)) == Speed(overhead=0.25, per_picture=0.125)
