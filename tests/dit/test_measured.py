"""Measured tables: written and read again, the frontier, the correlation, and files that are none."""

import dataclasses
import json
import math

import numpy as np
import pytest

from dit import papers
from dit.measured import (
    Cell,
    Family,
    MeasuredError,
    MeasuredModel,
    correlation,
    frontier,
    load_family,
    save_family,
)


def cell(model="a", steps=4, macs=10, frechet=1.0, **fields):
    usual = {"sampler": "ddim", "guidance_scale": 1.0, "guidance_interval": None, "cache_every": 1}
    usual |= {
        "passes": steps,
        "reused": 0,
        "seconds": macs / 1e9,
        "samples": 5000,
        "seed": 0,
        "thumbnails": "data:,",
    }
    return Cell(model=model, steps=steps, macs=macs, measures={"frechet": frechet}, **usual | fields)


def family(cells=()):
    models = tuple(
        MeasuredModel(
            name=name,
            preset="DiT-N/4",
            network="00",
            macs=macs,
            parameters=1,
            images_seen=2,
            seconds=0.1,
            seconds_reused=0.05,
        )
        for name, macs in (("a", 5), ("b", 50))
    )
    return Family(name="toys", classes=("x", "y"), models=models, cells=tuple(cells), about={"machine": "m"})


def test_a_table_is_read_as_it_was_written(tmp_path):
    cells = [cell(), cell("b", guidance_scale=1.5, guidance_interval=(100.0, 700.0), cache_every=2)]
    for some in (cells, []):
        save_family(tmp_path / "toys.json", family(some))
        assert load_family(tmp_path / "toys.json") == family(some)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file.*make it with python -m train.sweep"),
        ("{", "Expecting"),
        ("[]", "format is 'list'"),
        ('{"format": "x"}', "format is 'x'"),
        ('{"format": "dit-lab-measured/1", "name": "n"}', "'about' is missing.*again"),
    ],
)
def test_what_is_no_table_is_refused(text, said, tmp_path):
    if text is not None:
        (tmp_path / "t.json").write_text(text)
    with pytest.raises(MeasuredError, match=said):
        load_family(tmp_path / "t.json")


def spoilt(path, place, name, value):
    """A table in which one value is another; without it, if the other is `...`."""
    save_family(path, family([cell(), cell("b", 8)]))
    values = json.loads(path.read_text())
    part = values
    for step in place:
        part = part[step]
    if value is ...:
        del part[name]
    else:
        part[name] = value
    path.write_text(json.dumps(values))


CELL, MEASURES, MODEL = ("cells", 1), ("cells", 1, "measures"), ("models", 0)


@pytest.mark.parametrize(
    ("place", "name", "value", "said"),
    [
        (MEASURES, "frechet", ..., r"cell 2 \('b' in 8 steps\): 'frechet' is not among its measures"),
        (MEASURES, "frechet", "3", r"cell 2 \('b' in 8 steps\): frechet is '3'; .*finite number"),
        (MEASURES, "frechet", math.nan, "cell 2 .*frechet is nan"),
        (MEASURES, "frechet", None, "cell 2 .*frechet is None"),
        (MEASURES, "frechet", True, "cell 2 .*frechet is True"),
        (MEASURES, "frechet", 10**400, "cell 2 .*frechet is 1000"),
        (
            MEASURES,
            "frechet_interval",
            [None, None],
            "cell 2 .*frechet_interval is .None, None.; .*two numbers",
        ),
        (MEASURES, "frechet_interval", [2.0, 1.0], "the lower first"),
        (MEASURES, "frechet_interval", 2.0, "two numbers"),
        (MEASURES, "precision", [], r"cell 2 .*precision is \[\]"),
        (CELL, "more", 1, "cell 2 .*'more' is not known"),
        (CELL, "sampler", ..., "cell 2 .*'sampler' is missing"),
        (CELL, "model", "c", r"cell 2 \('c' in 8 steps\): its model is not in 'models'"),
        (CELL, "model", [], r"cell 2 .*model is \[\]; it must be a text"),
        (CELL, "steps", 0, "cell 2 .*steps is 0; it must be at least 1"),
        (CELL, "steps", 2.5, "cell 2 .*steps is 2.5; it must be a whole number"),
        (CELL, "macs", -1, "cell 2 .*macs is -1"),
        (CELL, "seconds", math.inf, "cell 2 .*seconds is inf; it must be a finite number"),
        (CELL, "guidance_interval", ["a", "b"], "cell 2 .*guidance_interval is .*two numbers or null"),
        (CELL, "guidance_interval", 7, "cell 2 .*guidance_interval is 7"),
        (CELL, "thumbnails", None, "cell 2 .*thumbnails is None; it must be a text"),
        (CELL, "measures", [], r"cell 2 .*measures is \[\]; it must be an object"),
        (("cells",), 1, 7, "cell 2 is 7; it must be an object"),
        (("cells",), 1, [], r"cell 2 is \[\]"),
        (MODEL, "macs", 0, r"model 1 \(a\) costs nothing"),
        (MODEL, "macs", "5", "model 1: macs is '5'; it must be a whole number"),
        (MODEL, "name", "b", r"model 2 \(b\) .*twice"),
        (("models",), 0, None, "model 1 is None"),
        ((), "about", [], r"the table: about is \[\]; it must be an object"),
        ((), "about", ..., "the table: 'about' is missing"),
        ((), "classes", "xy", "the table: classes is 'xy'; it must be a list"),
        ((), "classes", [1, 2], "'classes' are not all texts"),
        ((), "cells", {}, "the table: cells is {}; it must be a list"),
        ((), "name", 7, "the table: name is 7"),
    ],
)
def test_a_table_with_one_bad_value_is_refused_and_the_place_is_named(place, name, value, said, tmp_path):
    spoilt(tmp_path / "t.json", place, name, value)
    with pytest.raises(MeasuredError, match=f"t.json: .*{said}.*make it again with python -m train.sweep"):
        load_family(tmp_path / "t.json")


def test_a_cell_that_is_there_twice_is_refused(tmp_path):
    save_family(tmp_path / "t.json", family([cell(), cell("b"), cell()]))
    with pytest.raises(MeasuredError, match="cell 3 .*is there twice"):
        load_family(tmp_path / "t.json")


def test_brackets_without_an_end_are_refused(tmp_path):
    (tmp_path / "t.json").write_text("[" * 200_000)
    with pytest.raises(MeasuredError, match="train.sweep"):
        load_family(tmp_path / "t.json")


def test_cells_of_a_setting_come_model_by_model_fewest_steps_first():
    wanted = [cell("a", 1), cell("a", 8), cell("b", 2)]
    guided = cell("a", 1, guidance_scale=2.0)
    found = family([wanted[2], guided, wanted[1], wanted[0]])
    assert found.at(("ddim", 1.0, None, 1)) == wanted
    assert found.at(("ddim", 2.0, None, 1)) == [guided]


def test_the_frontier_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, 30, (60, 2)).tolist()
    cells = [cell(steps=i, macs=macs, frechet=float(distance)) for i, (macs, distance) in enumerate(drawn)]
    kept = frontier(cells)
    for one in cells:
        beaten = any(
            other.macs <= one.macs
            and other.frechet <= one.frechet
            and (other.macs, other.frechet) != (one.macs, one.frechet)
            for other in cells
        )
        assert beaten != any((one.macs, one.frechet) == (two.macs, two.frechet) for two in kept)
    assert [one.macs for one in kept] == sorted(one.macs for one in kept)
    by_time = [dataclasses.replace(one, seconds=-one.macs) for one in kept]
    assert frontier(by_time, "seconds") == [by_time[-1]]


def test_the_correlation_is_pearsons():
    rng = np.random.default_rng(1)
    pairs = [(float(10**x), float(y)) for x, y in rng.normal(size=(20, 2))]
    expected = np.corrcoef(np.log10([x for x, _ in pairs]), [y for _, y in pairs])[0, 1]
    assert correlation(pairs) == pytest.approx(expected)
    assert correlation([(10, 3.0), (100, 2.0), (1000, 1.0)]) == pytest.approx(-1)
    for bad in ([(1, 1), (2, 2)], [(1, 1), (1, 2), (1, 3)], [(1, 2), (2, 2), (3, 2)]):
        with pytest.raises(ValueError, match="3|nothing"):
            correlation(bad)
    assert math.isfinite(correlation(pairs[:3]))


def test_the_papers_own_correlation_follows_from_its_table():
    """Twelve models after 400,000 steps, without guidance: the paper's Fig. 8 has -0.93."""
    pairs = [(result.gflops, result.fid) for result in papers.SCALING]
    assert len(pairs) == 12 and correlation(pairs) == pytest.approx(-0.9298, abs=5e-5)
