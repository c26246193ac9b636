"""What may be asked for, and what is said when something else is."""

import dataclasses
from pathlib import Path

import pytest

import dit
from ui.limits import Limits
from ui.opening import open_studio
from ui.request import Wish, parse
from ui.studio import Rung

GOOD = {
    "model": "big",
    "label": 3,
    "steps": 10,
    "guidance_scale": 2.0,
    "seed": 7,
    "pictures": 2,
    "sampler": "ddim",
}


@pytest.fixture(scope="module")
def ladder(ladder_files: list[Path]) -> list[Rung]:
    """The two random models, and whatever is bundled."""
    return open_studio(ladder_files, limits=Limits(models=9)).rungs


def test_a_good_wish_becomes_settings(ladder: list[Rung]) -> None:
    request = parse(ladder, Wish(**GOOD))
    assert request.rung.name == "big"
    assert list(request.settings.classes) == [3, 3]
    assert list(request.settings.seeds) == [7, 8]
    assert request.settings.guidance_scale == 2.0


def test_the_ladder_is_ordered_by_compute(ladder: list[Rung]) -> None:
    costs = [rung.macs_per_pass for rung in ladder]
    assert costs == sorted(costs) and costs[0] < costs[-1]


def test_a_class_may_be_named_and_a_model_counted(ladder: list[Rung]) -> None:
    assert parse(ladder, Wish(**GOOD | {"label": "Cone"})).label == 3
    assert parse(ladder, Wish(**GOOD | {"label": "4"})).label == 4
    position = [rung.name for rung in ladder].index("big")
    assert parse(ladder, Wish(**GOOD | {"model": position})).rung.name == "big"


def test_everything_needed_to_draw_again_is_described(ladder: list[Rung]) -> None:
    described = parse(ladder, Wish(**GOOD)).describe(1)
    again = parse(
        ladder,
        Wish(
            described["model"],
            described["class"],
            described["steps"],
            described["guidance_scale"],
            described["seed"],
            1,
            described["sampler"],
            described["guidance_interval"],
            described["cache_every"],
        ),
    )
    assert again.settings.seeds[0] == 8 and again.label == 3


def test_free_speed_may_be_asked_for(ladder: list[Rung]) -> None:
    request = parse(ladder, Wish(**GOOD, guidance_interval=[100, "600"], cache_every=2))
    assert request.settings.guidance_interval == (100, 600) and request.settings.cache_every == 2
    described = request.describe(0)
    assert described["guidance_interval"] == [100, 600] and described["cache_every"] == 2
    plain = parse(ladder, Wish(**GOOD))
    assert request.rung.macs(request.settings) < 0.8 * plain.rung.macs(plain.settings)
    assert request.rung.seconds(request.settings) < plain.rung.seconds(plain.settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 5}, r"class is 5; it must be a whole number from 0 to 4, or a name such as sphere"),
        ({"label": -1}, "from 0 to 4"),
        ({"guidance_interval": [700, 100]}, r"guidance_interval is \(700.0, 100.0\).*ascending"),
        (
            {"guidance_interval": "some"},
            "guidance_interval is 'some'; it must be 'all', or lowest",
        ),
        ({"guidance_interval": [0, "x"]}, "guidance_interval is 'x'; it must be a number from 0 to 1000"),
        ({"cache_every": 0}, "cache_every is 0; it must be a whole number from 1 to 10"),
        ({"label": "dodecahedron"}, "dodecahedron"),
        ({"label": 1.5}, "whole number from 0 to 4"),
        ({"steps": 0}, "steps is 0; it must be a whole number from 1 to 1000"),
        ({"steps": 10_000}, "from 1 to 1000"),
        ({"steps": "many"}, "steps is 'many'"),
        ({"steps": None}, "steps is None"),
        ({"steps": True}, "steps is True"),
        ({"steps": 2.5}, "whole number"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_scale": -1}, "from 0 to 20"),
        ({"guidance_scale": [2]}, "guidance_scale"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, f"seed is {2**63}; it must be a whole number from 0 to 9223372036854775791"),
        ({"seed": 10**400}, r"seed is 1000.*\.\.\."),
        ({"seed": "1e999999999"}, "seed is '1e9"),
        ({"guidance_scale": 10**400}, "from 0 to 20"),
        ({"guidance_scale": "sNaN"}, "guidance_scale is 'sNaN'"),
        ({"pictures": 500}, "pictures is 500; it must be a whole number from 1 to 16"),
        ({"pictures": 0}, "from 1 to 16"),
        ({"sampler": "dopri5"}, "ddim, dpm-solver"),
        ({"sampler": ["ddim"]}, "sampler"),
        ({"model": "DiT-XXL"}, "small"),
        ({"model": 99}, "position"),
        ({"model": float("nan")}, "model is nan"),
        ({"label": "x" * 10_000}, "no class is called 'x{60}'; big has classes 0 to 4: sphere"),
    ],
)
def test_bad_input_is_named_with_its_limit(ladder: list[Rung], change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(ladder, Wish(**GOOD | change))


@pytest.mark.parametrize("seed", [2**62 + 1, str(2**62 + 1)])
def test_a_large_seed_is_kept_to_the_last_digit(ladder: list[Rung], seed: int | str) -> None:
    assert parse(ladder, Wish(**GOOD | {"seed": seed})).settings.seeds[0] == 2**62 + 1


def test_numbers_may_come_as_text_or_as_whole_floats(ladder: list[Rung]) -> None:
    request = parse(ladder, Wish(**GOOD | {"steps": "7.0", "seed": 3.0, "guidance_scale": "1.5"}))
    assert (request.settings.steps, request.settings.seeds[0], request.settings.guidance_scale) == (7, 3, 1.5)


def test_class_names_may_have_capitals(ladder: list[Rung]) -> None:
    rung = dataclasses.replace(ladder[0], classes=("Great Dane", "great dane", "Pug"))
    for label, found in (("Great Dane", 0), ("great dane", 1), ("GREAT DANE", 0), (" pug ", 2)):
        assert parse([rung], Wish(**GOOD | {"model": 0, "label": label})).label == found


def test_models_of_one_name_are_told_apart(ladder_files: list[Path]) -> None:
    names = [rung.name for rung in open_studio([ladder_files[0]] * 3, limits=Limits(models=9)).rungs]
    assert {"small", "small (2)", "small (3)"} <= set(names) and len(set(names)) == len(names)


def test_a_model_that_cannot_be_drawn_with_is_refused_by_name(tmp_path: Path) -> None:
    model = dit.build("DiT-N/8", in_channels=5)
    dit.weights.save(tmp_path / "latent.safetensors", model)
    with pytest.raises(dit.weights.WeightsError, match="latent.safetensors: this model has 5 channels"):
        open_studio([tmp_path / "latent.safetensors"])


def test_expected_seconds_grow_with_the_work(ladder: list[Rung]) -> None:
    few, many = (parse(ladder, Wish(**GOOD | {"steps": steps})) for steps in (5, 50))
    assert 0 < few.rung.seconds(few.settings) * 5 < many.rung.seconds(many.settings)
