"""Drawing many pictures: which, with what, on several devices, and as if never stopped."""

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import dit
from dit.digest import digest_of
from dit.weights import save
from train.draws import DESCRIPTION, Draw, describe, draw, open_pipelines

WISH = Draw(samples=20, steps=2, seed=40, batch_size=7, guidance_scale=1.5)


def tiny(seed: int = 0, **overrides):
    torch.manual_seed(seed)
    settings = {"input_size": 16, "in_channels": 3, "num_classes": 10, "prediction": "v"} | overrides
    model = dit.build("DiT-N/8", **settings)
    for parameter in model.parameters():
        if not parameter.any():  # a fresh model predicts zeros, whatever its class: see adaLN-zero
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def pipeline() -> dit.Pipeline:
    return dit.Pipeline(tiny())


class Failing:
    """A pipeline that breaks off at a batch, as a killed process or a full GPU does.

    before: is called before each batch, with how many it has drawn.
    """

    def __init__(
        self,
        pipeline: dit.Pipeline,
        good: int,
        error: BaseException,
        before: Callable[[int], object] = lambda drawn: None,
    ) -> None:
        self.model, self.autoencoder, self.pipeline = pipeline.model, None, pipeline
        self.good, self.error, self.before, self.drawn = good, error, before, 0

    def stream(self, settings):
        self.before(self.drawn)
        for frame in self.pipeline.stream(settings):
            if self.drawn >= self.good:
                raise self.error
            yield frame
        self.drawn += 1


def test_pictures_follow_from_class_and_seed_alone(pipeline):
    pictures, labels = draw([pipeline], WISH)
    assert pictures.shape == (20, 16, 16, 3) and pictures.dtype == np.uint8
    assert labels.tolist() == [*range(10)] * 2 and labels.dtype == np.int64
    for k in (0, 6, 7, 19):
        settings = dit.SampleSettings(classes=[k % 10], seeds=[40 + k], steps=2, guidance_scale=1.5)
        alone = pipeline.generate(settings).x0[0]
        assert np.abs(alone.astype(int) - pictures[k]).max() <= 1, k  # batches differ in rounding
    assert len({picture.tobytes() for picture in pictures}) == 20
    other = dit.SampleSettings(classes=[1], seeds=[40], steps=2, guidance_scale=1.5)
    assert np.abs(pipeline.generate(other).x0[0].astype(int) - pictures[0]).max() > 10  # the class matters


@pytest.mark.parametrize(
    "change",
    [
        {"sampler": "ddpm"},
        {"eta": 1.0},
        {"guidance_scale": 4.0},
        {"steps": 3},
        {"guidance_interval": (0, 600)},
        {"guided_channels": 1},
        {"guidance_schedule": "power-cosine"},
        {"spacing": "linspace"},
        {"cache_every": 2},
        {"seed": 41},
    ],
)
def test_every_setting_reaches_the_sampler(pipeline, change):
    wish = replace(WISH, samples=4, batch_size=4, **change)
    settings = {name: value for name, value in asdict(wish).items() if name not in ("samples", "batch_size")}
    seed = settings.pop("seed")
    direct = dit.SampleSettings(classes=range(4), seeds=range(seed, seed + 4), **settings)
    pictures = draw([pipeline], wish)[0]
    assert (pictures == pipeline.generate(direct).x0).all()
    assert (pictures != draw([pipeline], replace(WISH, samples=4, batch_size=4))[0]).any()


def test_any_number_of_classes_and_none():
    three = dit.Pipeline(tiny(num_classes=3))
    assert draw([three], replace(WISH, samples=5))[1].tolist() == [0, 1, 2, 0, 1]
    free = dit.Pipeline(tiny(num_classes=0))
    wish = replace(WISH, samples=5, guidance_scale=1.0)
    pictures, labels = draw([free], wish)
    assert labels.tolist() == [0] * 5 and len({picture.tobytes() for picture in pictures}) == 5


def test_what_was_stopped_goes_on_and_ends_the_same(pipeline, tmp_path, capsys):
    whole = draw([pipeline], WISH)[0]
    broken = Failing(pipeline, good=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        draw([broken], WISH, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "0000000-0000007.npy",
        "0000007-0000014.npy",
        DESCRIPTION,
    ]
    (folder / ".0000014-0000020.npy.x.partial").write_bytes(b"half")
    capsys.readouterr()
    counting = Failing(pipeline, good=100, error=AssertionError())
    again, labels = draw([counting], WISH, tmp_path)
    assert (again == whole).all() and labels.tolist() == [*range(10)] * 2
    assert counting.drawn == 1  # of three batches
    assert "28/40" in capsys.readouterr().err.replace(" ", "")  # progress begins where it was stopped
    assert len(list(folder.iterdir())) == 4  # and nothing is left over
    nothing = Failing(pipeline, good=0, error=AssertionError("drawn again"))
    assert (draw([nothing], WISH, tmp_path)[0] == whole).all()


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 3}, {"batch_size": 6}, {"guidance_scale": 1.0}])
def test_other_settings_are_never_mixed(pipeline, tmp_path, change):
    draw([pipeline], WISH, tmp_path)
    changed = replace(WISH, **change)
    assert (draw([pipeline], changed, tmp_path)[0] == draw([pipeline], changed)[0]).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_more_pictures_begin_with_the_fewer(pipeline, tmp_path):
    """Whole batches that are kept are not drawn again: 20 are 7, 7 and 6, of which 27 has the first two."""
    fewer = draw([pipeline], WISH, tmp_path)[0]
    counting = Failing(pipeline, good=100, error=AssertionError())
    more = draw([counting], replace(WISH, samples=27), tmp_path)[0]
    assert counting.drawn == 2 and (more[:14] == fewer[:14]).all()
    # The rest lies in a batch of another size, where some processors round the last bit otherwise.
    assert np.abs(more[14:20].astype(int) - fewer[14:]).max() <= 1
    assert (draw([pipeline], WISH, tmp_path)[0] == fewer).all()


def test_other_weights_are_never_mixed(pipeline, tmp_path):
    other = dit.Pipeline(tiny(seed=1))
    draw([pipeline], WISH, tmp_path)
    assert (draw([other], WISH, tmp_path)[0] == draw([other], WISH)[0]).all()
    assert digest_of(other.model) != digest_of(pipeline.model) == digest_of(tiny())
    told = {json.loads((folder / DESCRIPTION).read_text())["network"] for folder in tmp_path.iterdir()}
    assert told == {digest_of(other.model), digest_of(pipeline.model)}
    described = describe(pipeline, WISH)
    assert described["steps"] == 2 and described["autoencoder"] is None


def test_damaged_chunks_are_named(pipeline, tmp_path):
    draw([pipeline], WISH, tmp_path)
    chunk = next(tmp_path.rglob("0000007-*.npy"))
    chunk.write_bytes(chunk.read_bytes()[:200])
    with pytest.raises(ValueError, match="0000007-0000014.npy: damaged.*remove it"):
        draw([pipeline], WISH, tmp_path)
    np.save(chunk, np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="holds 2 pictures instead of 7"):
        draw([pipeline], WISH, tmp_path)


def test_several_devices_share_the_work_and_change_nothing(pipeline, tmp_path):
    all_begin = threading.Barrier(3)

    def together(drawn: int) -> None:  # else one of them may have drawn all before another begins
        if not drawn:
            all_begin.wait(200)

    pipelines = [Failing(dit.Pipeline(tiny()), 100, AssertionError(), together) for _ in range(3)]
    wish = replace(WISH, batch_size=1)
    assert (draw(pipelines, wish, tmp_path)[0] == draw([pipeline], wish)[0]).all()
    assert sum(one.drawn for one in pipelines) == 20 and all(one.drawn for one in pipelines)


def test_an_error_on_one_device_ends_the_work_of_all(pipeline, tmp_path):
    begun = threading.Event()
    bad = Failing(dit.Pipeline(tiny()), 0, RuntimeError("out of memory"), lambda drawn: begun.set())
    good = Failing(pipeline, 1000, AssertionError(), lambda drawn: begun.wait(200))
    with pytest.raises(RuntimeError, match="out of memory"):
        draw([good, bad], replace(WISH, batch_size=1, samples=400), tmp_path)
    assert good.drawn < 390  # it did not go on to the end


def test_one_pipeline_where_there_is_one_device(tmp_path):
    save(tmp_path / "tiny.safetensors", tiny(), {})
    (only,) = open_pipelines(tmp_path / "tiny.safetensors", "cpu")
    assert only.device.type == "cpu"
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        open_pipelines(tmp_path / "tiny.safetensors", "nowhere")


def test_the_sampler_is_the_models_and_settings_are_checked():
    assert Draw().resolved(tiny().config).sampler == "ddim"
    assert (
        Draw().resolved(tiny(formulation="flow", learn_sigma=False, prediction="velocity").config).sampler
        == "euler"
    )
    with pytest.raises(ValueError, match="sampler is 'heun', but this model's formulation is ddpm"):
        Draw(sampler="heun").resolved(tiny().config)
    for name in ("samples", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            Draw(**{name: 0})
    with pytest.raises(ValueError, match="steps is 0"):
        Draw(steps=0)
