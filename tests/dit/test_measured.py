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
        ('{"format": "dit-lab-measured/1", "name": "n"}', "'classes'.*again"),
    ],
)
def test_what_is_no_table_is_refused(text, said, tmp_path):
    if text is not None:
        (tmp_path / "t.json").write_text(text)
    with pytest.raises(MeasuredError, match=said):
        load_family(tmp_path / "t.json")


def test_a_cell_with_a_field_too_many_is_refused(tmp_path):
    save_family(tmp_path / "t.json", family([cell()]))
    values = json.loads((tmp_path / "t.json").read_text())
    values["cells"][0]["more"] = 1
    (tmp_path / "t.json").write_text(json.dumps(values))
    with pytest.raises(MeasuredError, match="more"):
        load_family(tmp_path / "t.json")


def test_cells_of_a_setting_come_model_by_model_fewest_steps_first():
    wanted = [cell("a", 1), cell("a", 8), cell("b", 2)]
    guided = cell("a", 1, guidance_scale=2.0)
    found = family([wanted[2], guided, wanted[1], wanted[0]])
    assert found.at(("ddim", 1.0, None, 1)) == wanted
    assert found.settings() == [("ddim", 1.0, None, 1), ("ddim", 2.0, None, 1)]


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
