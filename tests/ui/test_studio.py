"""The models on offer: what can be had, why not, who is in memory."""

import asyncio
from pathlib import Path

import pytest
import torch

import dit
from dit import remote
from dit.published import PUBLISHED
from dit.speed import Speed
from ui.controls import fitted, wish_of
from ui.costs import ladder_html, price_html
from ui.limits import Limits
from ui.models import results_of, table_html, terms_of
from ui.opening import open_studio
from ui.request import Wish, parse
from ui.studio import Rung, Studio
from ui.tickets import Frame, Loading, Wait
from ui.turns import Full, Turns

PLAIN = [0, 999, 1]  # guided at all noise levels, nothing reused


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and nothing to ask."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def studio(no_hub: None, ladder_files: list[Path]) -> Studio:
    """The two random models and the bundled ones, two in memory at most."""
    return open_studio(ladder_files, limits=Limits(models=2, small_bytes=1))


def named(studio: Studio, name: str) -> Rung:
    return next(rung for rung in studio.rungs if rung.name == name)


def settings(rung: Rung, **fields: object) -> dit.SampleSettings:
    return dit.SampleSettings(**({"classes": [0], "seeds": [0], "steps": 2} | fields))


def test_the_ladder_has_the_published_models_on_top(studio: Studio) -> None:
    assert [rung.name for rung in studio.rungs[-2:]] == list(PUBLISHED)
    costs = [rung.macs_per_pass for rung in studio.rungs]
    assert costs == sorted(costs)


def test_published_models_are_counted_without_their_weights(studio: Studio) -> None:
    for side, macs, parameters in ((256, 118_621_421_568, 675_129_632), (512, 524_538_298_368, 676_014_368)):
        rung = named(studio, f"DiT-XL/2-{side}")
        assert (rung.macs_per_pass, rung.parameters, rung.side) == (macs, parameters, side)
        assert rung.parameters == rung.published.parameters
        assert rung.pipeline is None and rung.bytes == 0
        assert len(rung.classes) == 1000 and rung.titles[207] == "golden retriever"


def test_at_most_so_many_are_in_memory_and_the_least_recently_used_goes(studio: Studio) -> None:
    assert len(studio.resident) == 2
    small, big = named(studio, "small"), named(studio, "big")
    studio.pipeline(small), studio.pipeline(big)
    assert studio.resident == [small, big]
    studio.pipeline(small)
    other = next(rung for rung in studio.rungs if rung not in (small, big))
    studio.pipeline(other)
    assert studio.resident == [small, other] and big.pipeline is None and big.bytes == 0
    assert small.bytes == small.size == 4 * small.parameters


def test_small_models_count_for_their_part_of_the_room(ladder_files: list[Path]) -> None:
    rungs = open_studio(ladder_files).rungs
    small, big, large = (
        next(r for r in rungs if r.name == name) for name in ("small", "big", [*PUBLISHED][-1])
    )
    tight = Studio(rungs, torch.device("cpu"), Limits(models=1, small_bytes=small.size + big.size))
    assert tight.fits([small, big]) and not tight.fits([small, big, rungs[0]])
    assert tight.fits([large]) and not tight.fits([large, small]) and not tight.fits([large, large])
    assert Studio(rungs, torch.device("cpu")).fits([rung for rung in rungs if not rung.latent])


def test_an_unloaded_model_is_read_again_and_draws_the_same(studio: Studio) -> None:
    small = named(studio, "small")
    [*_, before] = studio.stream(small, settings(small))
    studio.unload(small)
    [*_, after] = studio.stream(small, settings(small))
    assert (before.x0 == after.x0).all()


def test_why_a_model_is_missing_and_what_helps(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    rung, command = named(studio, "DiT-XL/2-256"), "python -m dit.hub pull DiT-XL/2-256"
    assert "HF_HUB_OFFLINE" in studio.missing(rung).reason and studio.missing(rung).command == command
    monkeypatch.setattr(remote, "is_offline", lambda: False)
    assert "Models tab" in studio.missing(rung).reason and studio.missing(rung).command == command
    studio.reachable = False
    assert "cannot be reached" in studio.missing(rung).reason and studio.missing(rung).command == command
    assert studio.missing(named(studio, "small")) is None


def test_missing_models_are_grey_with_the_reason(studio: Studio) -> None:
    rung = named(studio, "DiT-XL/2-512")
    ladder, table = ladder_html(studio, rung), table_html(studio)
    assert ladder.count("dl-missing") == 2 and "python -m dit.hub pull DiT-XL/2-512" in ladder
    assert table.count("dl-missing") == 2 and "<code>python -m dit.hub pull DiT-XL/2-512</code>" in table
    assert "CC-BY-NC 4.0" in terms_of(rung) and "not for commercial use" in terms_of(rung)


def test_a_missing_model_has_a_price_all_the_same(studio: Studio) -> None:
    price = price_html(parse(studio.rungs, Wish("DiT-XL/2-256", 207, 250, 4.0, 0, 1, "ddpm")))
    assert "59,311" in price  # GMACs: 118.62 x 2 x 250
    assert "min" in price


def test_names_find_imagenet_classes_and_shared_ones_are_told_apart(studio: Studio) -> None:
    def label(name: str) -> int:
        return parse(studio.rungs, Wish("DiT-XL/2-256", name, 2, 1.0, 0, 1, "ddim")).label

    assert label("Golden Retriever") == 207 and label("Carassius auratus") == 1
    assert label("crane (the bird)") == 134 and label("crane (the machine)") == 517
    with pytest.raises(ValueError, match=r"134 \(crane \(the bird\)\), 517 \(crane \(the machine\)\)"):
        label("crane")


def test_a_job_reads_its_model_first_and_says_so(studio: Studio) -> None:
    async def scene() -> None:
        turns, small = Turns(studio), named(studio, "small")
        studio.unload(small)
        request = parse(studio.rungs, Wish("small", 0, 2, 1.0, 0, 1, "ddim"))
        told = [event async for event in turns.draw(request, turns.enter("a", 1.0))]
        events = [event for event in told if not isinstance(event, Wait)]
        assert [type(event) for event in events] == [Loading, Frame, Frame]
        assert events[0].name == "small"

    asyncio.run(scene())


def test_memory_is_not_freed_under_a_job(studio: Studio) -> None:
    async def scene() -> None:
        turns = Turns(studio)
        turns.enter("a", 1.0)
        with pytest.raises(Full, match="a job is being drawn"):
            await turns.unload(studio.resident[0])
        turns.line.clear()
        rung = studio.resident[0]
        await turns.unload(rung)
        assert rung.pipeline is None and rung not in studio.resident

    asyncio.run(scene())


@pytest.fixture
def edm_studio(no_hub: None, tmp_path: Path) -> Studio:
    """A small DiffiT of EDM's formulation beside the bundled models."""
    model = dit.build("DiffiT-C-32", input_size=16, num_classes=3)
    dit.weights.save(tmp_path / "edm.safetensors", model, {"name": "edm", "classes": ["a", "b", "c"]})
    return open_studio([tmp_path / "edm.safetensors"])


def test_an_edm_model_is_priced_and_drawn_by_its_own_sampler(edm_studio: Studio) -> None:
    """Three steps of Heun's method are five network calls, each of two passes."""
    rung = named(edm_studio, "edm")
    request = parse(edm_studio.rungs, Wish("edm", "b", 3, 2.0, 0, 2, "auto"))
    assert request.describe(0)["sampler"] == "heun" and request.describe(0)["guidance_interval"] == "all"
    assert (rung.calls(request.settings), rung.cost(request.settings).passes) == (5, 10)
    said = price_html(request)
    assert "3 steps of Heun's method, 5 looks at the picture, 2 passes a look" in said
    assert "10 passes a picture" in said
    *_, last = edm_studio.stream(rung, request.settings)
    assert last.done and last.macs == 2 * 10 * rung.macs_per_pass and last.level == "σ = 0.002"


@pytest.fixture
def flow_studio(no_hub: None, tmp_path: Path) -> Studio:
    """A small flow model beside the bundled ones."""
    fields = {"formulation": "flow", "prediction": "velocity", "learn_sigma": False}
    model = dit.build("DiT-N/4", input_size=16, in_channels=3, num_classes=3, **fields)
    dit.weights.save(tmp_path / "flow.safetensors", model, {"name": "flow", "classes": ["a", "b", "c"]})
    return open_studio([tmp_path / "flow.safetensors"])


@pytest.mark.parametrize(
    ("sampler", "calls", "said"),
    [
        ("auto", 3, ": 3 steps, 2 passes a step"),
        ("sde", 3, ": 3 steps, 2 passes a step"),
        ("heun", 5, "3 steps of Heun's method, 5 looks at the picture, 2 passes a look"),
    ],
)
def test_a_flow_model_is_priced_and_drawn_by_each_of_its_samplers(
    sampler: str, calls: int, said: str, flow_studio: Studio
) -> None:
    rung = named(flow_studio, "flow")
    request = parse(flow_studio.rungs, Wish("flow", "b", 3, 2.0, 0, 2, sampler))
    assert request.describe(0)["sampler"] == {"auto": "euler"}.get(sampler, sampler)
    assert (rung.calls(request.settings), rung.cost(request.settings).passes) == (calls, 2 * calls)
    assert said in price_html(request)
    *_, last = flow_studio.stream(rung, request.settings)
    assert last.done and last.macs == 2 * 2 * calls * rung.macs_per_pass and last.level == "t = 0.333"


def test_the_page_counts_noise_levels_as_timesteps(flow_studio: Studio, edm_studio: Studio) -> None:
    """Whatever a model's own levels are; at both ends of the sliders, all are guided."""

    def asked(studio: Studio, name: str, *interval: int) -> object:
        position = studio.rungs.index(named(studio, name))
        return wish_of(studio, [position, 1, 10, 2.0, 0, 4, "auto", *interval, 1]).guidance_interval

    assert asked(flow_studio, "flow", 0, 999) == "all"
    assert asked(flow_studio, "DiT-N-4-solids", 100, 999) == [100, 999]
    assert asked(flow_studio, "flow", 0, 333) == [0, pytest.approx(1 / 3)]
    assert asked(edm_studio, "edm", 0, 998) == pytest.approx([0.002, 80], rel=0.02)


def test_samplers_follow_a_change_to_a_flow_model(flow_studio: Studio) -> None:
    """Those of timesteps give way; Heun's, which a flow has too, stays."""
    flow = flow_studio.rungs.index(named(flow_studio, "flow"))
    plain = flow_studio.rungs.index(named(flow_studio, "DiT-N-4-solids"))
    chosen = [
        fitted(flow_studio, [position, 1, 10, 2.0, 0, 4, sampler, *PLAIN])[6]
        for position, sampler in ((flow, "ddim"), (flow, "heun"), (flow, "sde"), (plain, "euler"))
    ]
    assert chosen == ["euler", "heun", "sde", "ddim"]
    assert "adaLN-Zero (flow matching)" in table_html(flow_studio)
    with pytest.raises(ValueError, match="sampler is 'ddim'.*flow; use euler or heun or sde"):
        parse(flow_studio.rungs, Wish("flow", 0, 3, 2.0, 0, 1, "ddim"))


def test_a_sampler_of_the_other_formulation_is_refused(edm_studio: Studio) -> None:
    with pytest.raises(ValueError, match="sampler is 'ddim'.*edm; use heun"):
        parse(edm_studio.rungs, Wish("edm", 0, 3, 2.0, 0, 1, "ddim"))
    with pytest.raises(ValueError, match="sampler is 'heun'.*ddpm; use ddim"):
        parse(edm_studio.rungs, Wish("DiT-N-4-solids", 0, 3, 2.0, 0, 1, "heun"))


def test_the_expected_seconds_count_every_call(edm_studio: Studio) -> None:
    """With a cost a call and none a picture, Heun's n steps take 2 n - 1 of them."""
    rung = named(edm_studio, "edm")
    rung.speed = Speed(overhead=1.0, per_picture=0.0)
    assert rung.seconds(settings(rung, steps=10)) == 19


def test_the_compared_backbones_are_on_offer(no_hub: None, ladder_files: list[Path], monkeypatch) -> None:
    """Without being read and timed one by one at the start."""
    monkeypatch.setattr("dit.weights.BACKBONES", ladder_files[0].parent)
    studio = open_studio()
    small, big = named(studio, "small"), named(studio, "big")
    assert small.pipeline is None and big.pipeline is None and studio.missing(big) is None
    assert big.speed.per_picture > small.speed.per_picture > 0


def test_an_unconditional_model_is_fitted_with_what_it_can_have(no_hub: None, tmp_path: Path) -> None:
    """While the page follows a change of model, its old guidance and sampler are no complaint."""
    model = dit.build("DiffiT-C-32", input_size=16, num_classes=0)
    dit.weights.save(tmp_path / "free.safetensors", model, {"name": "free", "classes": []})
    studio = open_studio([tmp_path / "free.safetensors"])
    position = studio.rungs.index(named(studio, "free"))
    values = [position, 3, 10, 2.5, 0, 4, "ddim", 0, 999, 3]
    assert fitted(studio, values) == [position, 3, 10, 1, 0, 4, "heun", 0, 999, 1]
    assert parse(studio.rungs, wish_of(studio, fitted(studio, values))).settings.guidance_scale == 1
    with pytest.raises(ValueError, match="no null class"):
        parse(studio.rungs, Wish("free", 0, 3, 2.5, 0, 1, "auto"))
    usual = parse(studio.rungs, Wish("free", 0, 3, None, 0, 1, "auto"))
    assert usual.settings.guidance_scale == 1
    other = studio.rungs.index(named(studio, "DiT-T-4-solids"))
    assert fitted(studio, [other, *values[1:]]) == [other, *values[1:]]
    assert fitted(studio, [None, *values[1:]]) == [None, *values[1:]]


SETTINGS = {"steps": 20, "sampler": "heun", "guidance_scale": 1.5}
ACCURACY, FRECHET = {"overall": 0.9876}, {"distance": 12.345, "real": 0.5}
EVENLY = {"pictures_per_class": 200, "pictures": 2000}


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (
            EVENLY | {"accuracy": ACCURACY, "frechet": FRECHET},
            "accuracy 98.8%, Fréchet 12.3 (real pictures 0.5), of 200",
        ),
        (
            EVENLY | {"accuracy": ACCURACY},
            "accuracy 98.8%, of 200 pictures a class: 20 heun steps, guidance 1.5",
        ),
        ({"accuracy": ACCURACY, "pictures": 2001}, "accuracy 98.8%, of 2,001 pictures: 20 heun steps"),
        (
            {"frechet": FRECHET, "pictures": 2000},
            "Fréchet 12.3 (real pictures 0.5), of 2,000 pictures: 20 heun",
        ),
        ({"frechet": {"distance": 12.345}, "pictures": 20}, "Fréchet 12.3, of 20 pictures: 20 heun"),
        ({}, "not evaluated"),
        ({"accuracy": 0.5}, "not evaluated"),  # somebody else's
    ],
)
def test_results_are_told_with_their_settings(results: dict, said: str, studio: Studio) -> None:
    rung = named(studio, "small")
    rung.provenance["results"] = SETTINGS | results
    assert results_of(rung).startswith(said)
    assert f'<td class="" data-label="Results"><div>{results_of(rung)}</div>' in table_html(studio)


def test_the_table_tells_the_network(studio: Studio) -> None:
    assert '<td class="" data-label="Network"><div>DiT, adaLN-Zero</div>' in table_html(studio)
