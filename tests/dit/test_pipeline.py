"""From settings to pictures: each picture its own, every frame and pass counted, stopping stops."""

import re

import numpy as np
import pytest
import torch

import dit
from dit.autoencoder import Autoencoder, load_autoencoder
from dit.diffusion import SPACINGS, linear_schedule, timesteps
from dit.dit import DiT
from dit.pipeline import Pipeline, cost, guided, to_pictures, usual_guidance
from dit.published import PUBLISHED
from dit.samplers import OF_FORMULATION
from dit.samplers import SAMPLERS as ALL_SAMPLERS
from dit.settings import MAX_SEED, SampleSettings, levels
from dit.weights import WeightsError, outline, published_outline, save

SAMPLERS = {name: ALL_SAMPLERS[name] for name in OF_FORMULATION["ddpm"]}


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
    ("field", "value"),
    [("eta", 0.5), ("guided_channels", 1), ("guidance_interval", (0, 500)), ("spacing", "leading")],
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
@pytest.mark.parametrize("spacing", SPACINGS)
def test_one_frame_a_step(spacing, sampler, steps, pipeline):
    frames = list(pipeline.stream(settings(steps=steps, sampler=sampler, spacing=spacing)))
    assert [frame.index for frame in frames] == list(range(steps))
    assert [frame.t for frame in frames] == timesteps(steps, spacing).flip(0).tolist()
    assert {frame.steps for frame in frames} == {steps}
    for frame in frames:
        assert frame.x0.shape == frame.x_t.shape == (2, 8, 8, 3)
        assert frame.x0.dtype == frame.x_t.dtype == np.uint8
    assert (frames[-1].x0 == frames[-1].x_t).all()
    seconds = [frame.seconds for frame in frames]
    assert seconds == sorted(seconds) and seconds[0] > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, [1] * 5),
        ({"guidance_scale": 3.0}, [2] * 5),
        ({"guidance_scale": 0.0}, [2] * 5),
        # steps at t = 999, 749, 500, 250, 0
        ({"guidance_scale": 3.0, "guidance_interval": (250, 700)}, [1, 1, 2, 2, 1]),
    ],
    ids=str,
)
def test_the_cost_is_that_of_the_passes_that_ran(sampler, fields, counts, pipeline, calls):
    wish = settings(steps=5, sampler=sampler, **fields)
    spent = [frame.macs for frame in pipeline.stream(wish)]
    assert calls == [2 * n for n in counts]
    one = 2 * dit.macs(pipeline.model.config)
    assert spent == [one * sum(counts[: i + 1]) for i in range(5)]
    assert cost(pipeline.model, wish).passes == sum(counts)


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


# --- latents ---


@pytest.fixture(scope="module")
def latents(random_model, vae_folder):
    """A small model of latents and a small autoencoder: 8 x 8 latents, 64 x 64 pixels."""
    return Pipeline(random_model(in_channels=4), "cpu", load_autoencoder(vae_folder))


@pytest.fixture(scope="module")
def tiny(random_model):
    """The same with the small kind of autoencoder, which shows every step as a picture."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    return Pipeline(random_model(in_channels=4), "cpu", Autoencoder("tiny", AutoencoderTiny(**sizes)))


def test_pixels_are_finished_with_the_last_step(pipeline):
    frames = list(pipeline.stream(settings()))
    assert [(frame.finished, frame.done) for frame in frames] == [(0, False)] * 3 + [(2, True)]


@pytest.mark.parametrize("kind", ["latents", "tiny"])
def test_latents_are_previews_and_then_picture_after_picture(kind, request):
    pipeline, steps = request.getfixturevalue(kind), 4
    wish = settings(classes=[1, 2, 3], seeds=[1, 2, 3], guidance_scale=2.0)
    frames = list(pipeline.stream(wish))
    assert [frame.finished for frame in frames] == [0] * steps + [1, 2, 3]
    assert [frame.done for frame in frames] == [False] * (steps + 2) + [True]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 3, 3, 3]
    assert [frame.t for frame in frames] == [999, 666, 333, 0, 0, 0, 0]
    previews, decoded = frames[:steps], frames[steps:]
    side = 8  # whatever decodes at the end
    assert (
        {frame.x0.shape for frame in previews}
        == {frame.x_t.shape for frame in previews}
        == {(3, side, side, 3)}
    )
    assert {frame.x0.shape for frame in decoded} == {(3, 64, 64, 3)}
    one = 3 * dit.macs(pipeline.model.config) * 2
    assert [frame.macs for frame in frames] == [one, 2 * one, 3 * one, *[4 * one] * 4]  # of the transformer
    assert [frame.seconds for frame in frames] == sorted(frame.seconds for frame in frames)
    enlarged = previews[-1].x0.repeat(64 // side, axis=1).repeat(64 // side, axis=2)
    for frame in decoded:
        n = frame.finished
        assert (frame.x0[:n] == decoded[-1].x0[:n]).all()  # what is finished stays
        assert (frame.x0[n:] == enlarged[n:]).all()  # the rest is its preview
        assert (frame.x0 == frame.x_t).all()
    if kind == "latents":
        assert all((decoded[-1].x0[i] != enlarged[i]).any() for i in range(3))


def test_the_pictures_are_the_decoded_latents(latents):
    wish = settings(steps=3)
    noise = torch.stack(
        [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in wish.seeds]
    )
    with torch.no_grad():
        *_, last = SAMPLERS["ddim"](
            guided(latents.model, wish), noise, linear_schedule().alpha_bar, timesteps(3)
        )
        expected = to_pictures(latents.autoencoder.decode(last.x_t))
        preview = to_pictures(latents.autoencoder.preview(last.x_t))
    *_, before, _, done = latents.stream(wish)
    assert abs(done.x0.astype(int) - expected).max() <= 1 and expected.std() > 5
    assert abs(before.x0.astype(int) - preview).max() <= 1
    assert (latents.generate(wish).x0 == done.x0).all()


def test_decoding_can_be_stopped_between_pictures(latents, monkeypatch):
    decoded = []
    original = latents.autoencoder.decode
    monkeypatch.setattr(latents.autoencoder, "decode", lambda z: decoded.append(len(z)) or original(z))
    stream = latents.stream(settings(steps=2, classes=[1] * 5, seeds=range(5)))
    for _ in range(2):
        next(stream)
    assert decoded == []
    next(stream), next(stream)
    assert decoded == [1, 1]
    stream.close()
    assert decoded == [1, 1] and list(stream) == []


def test_time_between_decoded_pictures_is_not_counted(latents, monkeypatch):
    now = 100.0
    monkeypatch.setattr("dit.pipeline.time.perf_counter", lambda: now)
    for frame in latents.stream(settings(steps=2)):
        assert frame.seconds == 0
        now += 1000


def test_the_noise_can_be_given(pipeline, latents):
    """Then the seeds do not matter, but for what an ancestral sampler adds later."""
    for drawer, channels in ((pipeline, 3), (latents, 4)):
        noise = torch.stack(
            [torch.randn(channels, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)]
        )
        for sampler in SAMPLERS:
            plain = drawer.generate(settings(sampler=sampler)).x0
            assert (drawer.generate(settings(sampler=sampler), x_T=noise).x0 == plain).all()
        other = drawer.generate(settings(seeds=[7, 8]), x_T=noise).x0
        assert (other == drawer.generate(settings()).x0).all()


def test_the_autoencoder_must_fit(random_model, latents):
    for channels in (3, 8):
        with pytest.raises(ValueError, match=f"{channels} channels, but the latents of .* have 4"):
            Pipeline(random_model(in_channels=channels), "cpu", latents.autoencoder)


def test_loading_finds_the_autoencoder(random_model, pipeline_folder, vae_folder, tmp_path):
    """The folder's own, or the provenance's, or the one that is asked for; none for pixels."""
    assert Pipeline.load(pipeline_folder).autoencoder.source == str(pipeline_folder / "vae")
    model = random_model(in_channels=4)
    save(tmp_path / "m.safetensors", model, {"autoencoder": str(vae_folder)})
    loaded = Pipeline.load(tmp_path / "m.safetensors", dtype=torch.bfloat16, tiling=True)
    assert loaded.autoencoder.source == str(vae_folder) and loaded.autoencoder.module.use_tiling
    assert loaded.model.pos_embed.dtype == torch.bfloat16
    assert loaded.autoencoder.module.dtype == torch.float32  # half precision would show in its pictures
    assert loaded.generate(settings(steps=2)).x0.std() > 5
    with pytest.raises(WeightsError, match="nonsense"):
        Pipeline.load(tmp_path / "m.safetensors", autoencoder="nonsense")
    save(tmp_path / "pixels.safetensors", random_model())
    assert Pipeline.load(tmp_path / "pixels.safetensors").autoencoder is None


def test_loading_names_a_file_whose_latents_do_not_fit(random_model, vae_folder, tmp_path):
    save(tmp_path / "m.safetensors", random_model(in_channels=8))
    with pytest.raises(WeightsError, match="m.safetensors: this model has 8 channels.*have 4"):
        Pipeline.load(tmp_path / "m.safetensors", autoencoder=str(vae_folder))


@pytest.mark.parametrize(
    ("fields", "provenance", "scale"),
    [
        ({}, {}, 2.0),
        ({"in_channels": 1}, {}, 2.0),
        ({"in_channels": 4}, {}, 4.0),
        ({"in_channels": 4}, {"results": {"guidance_scale": 1.5}}, 1.5),
        ({"in_channels": 4}, {"results": {"fid": 3}}, 4.0),
        ({"num_classes": 0}, {"results": {"guidance_scale": 1.5}}, 1.0),
        ({"class_dropout_prob": 0.0}, {}, 1.0),
    ],
    ids=str,
)
def test_usual_guidance(fields, provenance, scale, random_model):
    model = random_model(**fields)
    model.provenance = provenance
    assert usual_guidance(model) == scale


# --- planning without weights ---


@pytest.mark.parametrize(
    ("fields", "passes_wanted"),
    [
        ({}, 5),
        ({"guidance_scale": 3.0}, 10),
        ({"guidance_scale": 3.0, "guidance_interval": (250, 700)}, 7),  # at 999, 749, 500, 250, 0
        ({"guidance_scale": 3.0, "guidance_interval": (250, 700), "spacing": "leading"}, 7),  # 800 ... 0
        ({"guidance_scale": 3.0, "guidance_interval": (700, 999), "spacing": "leading"}, 6),
        ({"guidance_scale": 3.0, "guidance_interval": (700, 999)}, 7),
    ],
    ids=str,
)
def test_a_model_without_weights_can_plan(fields, passes_wanted, random_model, pipeline):
    with torch.device("meta"):
        empty = DiT(pipeline.model.config)
    wish = settings(steps=5, **fields)
    assert cost(empty, wish).passes == cost(pipeline.model, wish).passes == passes_wanted
    visited = levels(wish.resolved(empty.config), "ddpm")
    assert sum(guided(empty, wish).passes(int(t)) for (t,) in visited) == passes_wanted


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"classes": [3, 10]}, "class is 10.*0 to 9"), ({"guided_channels": 4}, "guided_channels is 4")],
    ids=str,
)
def test_a_plan_refuses_what_the_model_could_not_serve(fields, said, pipeline):
    with torch.device("meta"):
        empty = DiT(pipeline.model.config)
    for plan in (guided, cost):
        with pytest.raises(ValueError, match=said):
            plan(empty, settings(**fields))


def test_an_outline_has_no_weights_and_can_plan(pipeline_folder):
    empty = outline(pipeline_folder)
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    assert empty.provenance["name"] == "diffusers_pipeline" and not empty.training
    assert cost(empty, settings(classes=[0, 999], guidance_scale=4.0)).passes == 8
    large = published_outline(PUBLISHED["DiT-XL/2-512"])
    assert sum(parameter.numel() for parameter in large.parameters()) == PUBLISHED["DiT-XL/2-512"].parameters
    assert usual_guidance(large) == 4.0


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
        ({"sampler": "dopri5"}, "'dopri5'.*ddim, dpm-solver.*ddpm"),
        ({"spacing": "trailing"}, "spacing is 'trailing'; choose one of auto, even, leading, linspace"),
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
        ({"guided_channels": 4}, "guided_channels is 4"),
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
