"""The Chart view behind its widgets: tables that are missing, points that are picked, Explore follows."""

import base64
import dataclasses
import os
import re

import gradio as gr
import numpy as np
import pytest

import dit
from dit.digest import digest_of
from dit.measured import save_family
from dit.pictures import png
from tests.families import CLASSES, made_up, strip
from ui import chart_view, controls
from ui.chart_address import fit
from ui.chart_toggles import toggles
from ui.chart_view import known_keys, shown
from ui.controls import NAMES, level_at, position_of
from ui.families import groups_of
from ui.measured_cell import (
    FOLLOWED,
    WAITS,
    cell_html,
    chosen_picture,
    pick_of,
    picked,
    pictured,
    sent,
    unfit,
)
from ui.measured_cell import cell_of as named_cell
from ui.measured_cell import strip as cut
from ui.measured_choice import MODEL
from ui.opening import open_studio
from ui.shelf import Shelf, offered, other_weights
from ui.studio import Studio
from ui.tables import first_of, load_tables, no_table

NOW = dict(zip(NAMES, (0, 3, 50, 2.0, 7, 4, "ddim", 0, 999, 1), strict=True))


@pytest.fixture(scope="module")
def family():
    return made_up()


@pytest.fixture(scope="module")
def studio(ladder_files) -> Studio:
    return open_studio(ladder_files)


def cell_of(family, **wanted):
    return next(c for c in family.cells if all(getattr(c, k) == v for k, v in wanted.items()))


def test_a_folder_of_tables_is_read_and_what_is_none_says_why(tmp_path, family):
    assert load_tables(tmp_path) == load_tables(tmp_path / "nowhere") == {}
    save_family(tmp_path / "toys.json", family)
    (tmp_path / "a.json").write_text("{}")
    tables = load_tables(tmp_path)
    assert list(tables) == ["a", "toys"] and tables["toys"] == family
    assert tables["a"].startswith("a.json: ") and "python -m train.sweep" in tables["a"]


def test_a_missing_table_is_said_with_the_remedy_and_no_toggle_is_left(tmp_path, family):
    for tables, name, said in (
        ({"solids": "There is no table for <b>solids"}, "solids", "no table for &lt;b&gt;solids"),
        ({}, None, "no table in .*python -m train.sweep"),
        ({"a": "a.json: broken <b>"}, "a", "a.json: broken &lt;b&gt;"),
        ({"toys": family}, "other", "no table in"),
        ({"toys": family}, ["toys"], "no table in"),
        ({"toys": dataclasses.replace(family, cells=())}, "toys", "has no cells"),
    ):
        words, drawn, told = shown(Shelf(tables, {}, no_table(tmp_path)), name)
        assert words == told == ""
        assert re.search(said, drawn) and "<svg" not in drawn
        assert not any(update["visible"] for update in toggles(tables, name).values())


def test_there_is_a_toggle_for_what_differs_only(family):
    offered = toggles({"toys": family}, "toys")
    assert offered["sampler"]["choices"] == ["ddim", "ddpm"] and offered["sampler"]["visible"]
    assert offered["caches"]["choices"] == [("none", 1), ("compute every 2 steps", 2)]
    assert offered["guidance"]["value"] == "none" and offered["steps"]["value"] == 250
    plain = made_up(samplers=["ddim"], guidances=[(1.0, None)], caches=[1])
    offered = toggles({"toys": plain}, "toys")
    assert not any(offered[name]["visible"] for name in ("sampler", "guidance", "caches"))


def test_values_from_anywhere_are_brought_to_what_the_table_has(family):
    tables = {"a": "broken", "toys": family}
    values = {name: update["value"] for name, update in fit(tables, {}).items()}
    usual = {"view": "picture", "cost": "macs", "sampler": "ddim", "guidance": "none", "caches": [1]}
    assert values == usual | {"family": "toys", "steps": 250}
    sent = {
        "view": MODEL,
        "sampler": "ddpm",
        "guidance": "3",
        "caches": [2, 9],
        "steps": 8,
        "cost": [],
        "x": 1,
    }
    fitted = fit(tables, sent)
    values = {name: update["value"] for name, update in fitted.items()}
    assert values == usual | {"family": "toys"} | {
        **{name: sent[name] for name in ("view", "sampler", "guidance", "steps")},
        "caches": [2],
    }
    assert fitted["steps"]["visible"] and not fitted["cost"]["visible"]
    assert fitted["guidance"]["choices"] == ["none", "3"]
    for wrong in ("b", ["toys"], None, 7):
        assert fit(tables, {"family": wrong})["family"]["value"] == "toys"
    assert fit(tables, {"family": "a"})["family"]["value"] == "a"  # whose chart says what is wrong with it
    for ticked, kept in (([2, 1], [2, 1]), ([9], [1]), ([], [1]), ([1, 1], [1]), ("1", [1])):
        assert fit(tables, {"caches": ticked})["caches"]["value"] == kept
    bare = fit({"toys": dataclasses.replace(family, cells=())}, {"steps": 8})
    assert bare["family"]["value"] == "toys" and not bare["steps"]["visible"]
    empty = fit({}, {"steps": 8})
    assert empty["family"]["value"] is None and not empty["steps"]["visible"]


def test_both_views_are_shown_with_words_and_what_the_numbers_are_of(family):
    for view, title in ((None, "GMACs a picture"), (MODEL, "GMACs of a forward pass")):
        words, drawn, told = shown(Shelf({"toys": family}, {}, ""), "toys", {"view": view})
        assert title in drawn and "<p>" in words and "not FID" in told and "on 5,000 pictures" in told


def test_names_with_hyphens_stay_whole_and_text_stays_text():
    assert chart_view.unbroken("a <b> DiT-P-2.") == 'a &lt;b&gt; <span class="dl-name">DiT-P-2</span>.'


def test_a_point_is_picked_by_its_number_and_nothing_else_is(family):
    tables = {"toys": family, "a": "broken"}
    assert picked(tables, "toys", {"pick": "5"}) == (family, family.cells[5])
    wrong = [{"pick": value} for value in ("-1", "216", "9" * 9999, "x", "²", 5, None, ["5"], "")]
    for name, sent_ in [("toys", one) for one in [*wrong, None, {}, "5"]] + [
        ("a", {"pick": "0"}),
        ("b", {"pick": "0"}),
        (["toys"], {"pick": "0"}),
    ]:
        with pytest.raises(gr.Error, match="no such point"):
            picked(tables, name, sent_)


def test_explore_is_set_to_a_cell(studio, family):
    cell = cell_of(family, model="big", steps=8, guidance_scale=3.0, cache_every=2, sampler="ddpm")
    cell = dataclasses.replace(cell, guidance_interval=(100.0, 700.0))
    *updates, name, wished = sent(studio, cell, list(NOW.values()))
    given = dict(zip(NAMES, updates, strict=True))
    assert studio.rungs[given["model"]["value"]].name == "big"
    assert given["steps"] == 8 and given["pictures"] == 4
    assert (given["guided_from"], given["guided_to"]) == (100, 700)
    assert given["guidance"]["value"] == wished == 3.0
    assert given["sampler"]["value"] == "ddpm" and given["cache"]["value"] == 2
    assert (given["seed"], given["label"]["value"], name["value"]) == (0, 0, "sphere")  # of its first picture
    cell = dataclasses.replace(cell, seed=30)
    *updates, name, _ = sent(studio, cell, list(NOW.values()), 3)
    given = dict(zip(NAMES, updates, strict=True))
    assert (given["seed"], given["label"]["value"], name["value"]) == (33, 3, "cone")
    plain = sent(studio, cell_of(family, model="big", guidance_scale=1.0), list(NOW.values()))
    assert plain[NAMES.index("guided_from")] == 0 and plain[NAMES.index("guided_to")] == controls.LAST


def test_what_explore_cannot_be_set_to_is_said(studio, family):
    assert unfit(studio, family.cells[0]) == ""
    assert "middle is not among" in unfit(studio, cell_of(family, model="middle"))
    over = dataclasses.replace(family.cells[0], steps=500, cache_every=8, guidance_scale=9.5)
    said = "do not go to 500 steps and a guidance scale of 9.5 and caching every 8 steps"
    assert unfit(studio, over).endswith(said)


@pytest.mark.parametrize("formulation", ["ddpm", "flow", "edm"])
def test_places_and_noise_levels_go_both_ways(formulation):
    for place in (0, 1, 100, 500, 998, 999):
        assert position_of(formulation, level_at(formulation, place)) == place


def test_the_pictures_of_a_cell_are_cut_apart_and_named(family):
    cell = family.cells[0]
    pixels = cut(cell.thumbnails)
    assert pixels.shape == (len(CLASSES), 32, 32, 3)
    assert all(len(np.unique(one.reshape(-1, 3), axis=0)) == 1 for one in pixels)  # each of one colour
    assert len({one[0, 0].tobytes() for one in pixels}) == len(CLASSES)
    text = cell_html(family, dataclasses.replace(cell, seed=7))
    assert text.count("<img") == 5 and "<span>torus · seed 11</span>" in text and "Explore is set" in text
    assert "small, 1 step" in text and "5,000 pictures" in text and 'data-chosen="0"' in text
    other = cell_html(dataclasses.replace(family, classes=("<b>",)), cell, "it is <i>", None)
    assert "picture 5 · seed 4" in other and "it is &lt;i&gt;" in other and "data-chosen" not in other
    many = dataclasses.replace(family, classes=tuple(f"c{i}, d" for i in range(1000)))
    assert "<span>c4 · seed 4</span>" in cell_html(many, cell)


def test_whether_explore_follows_is_said(studio, family):
    cell = cell_of(family, model="big")
    assert FOLLOWED in pictured(studio, family, cell, False)
    assert "other weights of big than drew these" in pictured(studio, family, cell, True)
    assert WAITS in pictured(studio, family, cell, False, restored=True)
    away = pictured(studio, family, cell_of(family, model="middle"), False)
    assert "has not followed: middle is not among" in away and "data-chosen" not in away


def test_a_point_has_a_name_of_its_own(family):
    assert len({pick_of(cell) for cell in family.cells}) == len(family.cells)
    for cell in family.cells:
        assert named_cell(family, pick_of(cell)) is cell
    for wrong in ("", "big", None, ["big"], 7, pick_of(family.cells[0]) + " "):
        assert named_cell(family, wrong) is None
    assert named_cell(None, pick_of(family.cells[0])) is None


def test_a_picture_is_chosen_by_its_number_and_nothing_else_is(family):
    assert chosen_picture(family.cells[0], {"picture": 4}) == 4
    for wrong in (-1, 5, "1", 1.0, True, None, [1]):
        with pytest.raises(gr.Error, match="no such picture"):
            chosen_picture(family.cells[0], {"picture": wrong})
    with pytest.raises(gr.Error, match="no such picture"):
        chosen_picture(family.cells[0], None)


def test_only_what_a_family_has_can_be_hidden(family):
    sent_ = {"hidden": ["c2", "small", "<b>", "m0", 7, ["c2"], "frontier"]}
    assert known_keys(family, sent_) == ["small", "c2", "frontier"]
    for wrong in (None, [], {}, {"hidden": "small"}):
        assert known_keys(family, wrong) == []
    assert known_keys(None, sent_) == []
    _, drawn, _ = shown(Shelf({"toys": family}, {}, ""), "toys", {}, ["small", "c2"])
    assert 'data-hidden="small c2"' in drawn
    assert "data-hidden" not in shown(Shelf({"toys": family}, {}, ""), "toys")[1]


def of_folder(studio, folder):
    """What the chart of a page with these tables offers."""
    return offered(dataclasses.replace(studio, tables=folder), groups_of(studio.rungs, studio.first, {}))


def test_families_without_a_table_are_offered_and_one_with_a_table_is_drawn_first(studio, family, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    save_family(tmp_path / "toys.json", family)
    tables = of_folder(studio, tmp_path)
    assert list(tables) == ["solids", "a", "toys"]  # the bundled models' family is the page's own
    assert "no table for solids" in tables["solids"] and "python -m train.sweep" in tables["solids"]
    assert first_of(tables) == "toys" and first_of({"a": "broken"}) == "a" and first_of({}) is None
    bundled = made_up("solids", models=[(rung.name, rung.macs_per_pass) for rung in studio.rungs[:3]])
    save_family(tmp_path / "b.json", bundled)  # called otherwise, but it is theirs
    assert list(of_folder(studio, tmp_path)) == ["a", "b", "toys"]
    save_family(tmp_path / "solids.json", bundled)
    assert list(of_folder(studio, tmp_path)) == ["solids", "a", "b", "toys"]


def test_a_table_is_read_once_until_it_changes(tmp_path, family):
    save_family(tmp_path / "toys.json", family)
    first = load_tables(tmp_path)["toys"]
    assert load_tables(tmp_path)["toys"] is first
    told = (tmp_path / "toys.json").stat()
    save_family(tmp_path / "toys.json", dataclasses.replace(family, cells=family.cells[:3]))
    os.utime(tmp_path / "toys.json", ns=(told.st_atime_ns, told.st_mtime_ns))  # within a tick of the clock
    assert len(load_tables(tmp_path)["toys"].cells) == 3


def test_a_table_of_other_weights_says_so(studio, family, ladder_files):
    digests = {path.stem: digest_of(dit.load(path)) for path in ladder_files}
    models = [dataclasses.replace(m, network=digests.get(m.name, "00")) for m in family.models]
    same = dataclasses.replace(family, models=tuple(models))
    assert other_weights(studio, same) == ()  # of "middle" the page has none at all
    assert other_weights(studio, family) == ("small", "big")
    shelf = Shelf({"toys": family}, {"toys": ("small", "big")}, "")
    assert "Other weights of small, big were measured" in shown(shelf, "toys")[0]
    assert "Other weights" not in shown(Shelf({"toys": family}, {"toys": ()}, ""), "toys")[0]
    assert shelf.differs("toys", cell_of(family, model="big"))
    assert not shelf.differs("toys", cell_of(family, model="middle"))


@pytest.mark.parametrize(
    "source",
    ["", "data:,", "javascript:1", "data:image/png;base64,AAAA", "data:image/png;base64,?", strip(1)[:-40]],
)
def test_pictures_that_are_none_are_said_to_be(family, source):
    cell = dataclasses.replace(family.cells[0], thumbnails=source)
    text = cell_html(family, cell)
    assert "cannot be read" in text and "<img" not in text


def test_a_strip_must_be_of_squares():
    with pytest.raises(ValueError, match="no row of squares"):
        cut("data:image/png;base64," + base64.b64encode(png(np.zeros((4, 10, 3), np.uint8))).decode())
