"""The page's address: every value from it is one that its control may have, and nothing in it is an error."""

import gradio as gr
import pytest

from dit.measured import save_family
from tests.families import made_up
from ui.clamps import number, one_of, several_of, whole, words
from ui.controls import LAST
from ui.limits import Limits
from ui.opening import open_studio
from ui.page import build
from ui.share import MAX_KEYS, MAX_TEXT, Share, notice_html, plain
from ui.studio import Studio

NASTY = [
    "", " ", "nan", "inf", "-inf", "1e999999999", "-1e999999999", "9" * 2000, "0x10", "½", "٣", "1_000",
    "--1", "<script>alert(1)</script>", "'; drop table", "\x00", "\u202e", "😀", "null", "[]", "{}", "true",
    "../..",
    "%00", "a,b", ",", "x" * 5000,
]  # fmt: skip


@pytest.fixture
def share() -> Share:
    """One control of each kind, within a page."""
    made = Share()
    with gr.Blocks():
        made.add("steps", gr.Slider(1, 250, 50), whole(1, 250))
        made.add("scale", gr.Slider(1, 8, 2), number(1, 8))
        made.add("sampler", gr.Dropdown(["ddim", "heun"], value="ddim"), one_of(["ddim", "heun"]))
        made.add("shown", gr.CheckboxGroup(["a", "b"]), several_of(["a", "b"]))
        made.add("values", gr.Textbox(), words(40))
        made.add("model", gr.Slider(0, 2, 1), None, words=lambda: ["small", "middle", "big"])
        with gr.Tabs() as tabs:
            with gr.Tab("One", id="one") as one:
                pass
            with gr.Tab("Two", id="two") as two:
                pass
        made.add_tabs("tab", tabs, {"one": one, "two": two})
    return made


def test_good_values_are_taken_as_they_are(share: Share) -> None:
    pairs = {"steps": "20", "scale": "1.5", "sampler": "heun", "shown": "b,a", "values": "1, 2\n3",
             "model": "big", "tab": "two"}  # fmt: skip
    taken, said = share.read(pairs.items())
    assert said == []
    assert taken == {"steps": 20, "scale": 1.5, "sampler": "heun", "shown": ["b", "a"],
                     "values": "1, 2\n3", "model": 2, "tab": "two"}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "text", "value", "said"),
    [
        ("steps", "99999", 250, "steps is '99999', beyond its limit; 250 is taken"),
        ("steps", "-3", 1, "1 is taken"),
        ("steps", "1e999999999", 250, "250 is taken"),
        ("steps", "2.6", 3, "3 is taken"),
        ("scale", "inf", 8.0, "8 is taken"),
        ("steps", "many", None, "steps is 'many', but it must be a number"),
        ("steps", "nan", None, "must be a number"),
        ("sampler", "DDIM", None, "sampler is 'DDIM', but it is not one of the choices"),
        ("shown", "a,c", None, "not all of it is among the choices"),
        ("values", "x" * 41, None, "41 letters, and at most 40 are taken"),
        ("values", "a\x00b", None, "cannot be shown"),
        ("model", "huge", None, "there is none of this name here"),
        ("model", "1", None, "there is none of this name here"),
        ("tab", "three", None, "not one of the choices"),
        ("colour", "red", None, "'colour' is not known here"),
        ("steps", "1" * (MAX_TEXT + 1), None, f"at most {MAX_TEXT} are read"),
    ],
)
def test_others_are_brought_into_bounds_or_left_out_with_a_word(
    share: Share, key: str, text: str, value: object, said: str
) -> None:
    taken, complaints = share.read([(key, text)])
    assert taken == ({} if value is None else {key: value})
    assert len(complaints) == 1 and said in complaints[0]


def test_repeated_keys_too_many_and_those_of_others(share: Share) -> None:
    taken, said = share.read([("steps", "3"), ("steps", "4")])
    assert taken == {"steps": 3} and said == ["steps is there more than once, and the first counts"]
    assert share.read([("__theme", "dark"), ("utm_source", "x"), ("view", "api")]) == ({}, [])
    taken, said = share.read([(f"k{i}", "x") for i in range(5000)] + [("steps", "3")])
    assert taken == {} and len(said) == MAX_KEYS + 1 and "only the first 100 of 5001" in said[0]
    notice = notice_html(said)
    assert len(notice) < 500 and "and 97 more" in notice


def test_a_notice_shows_text_and_never_markup(share: Share) -> None:
    _, said = share.read([("<img src=x onerror=alert(1)>", "1"), ("sampler", "<script>alert(1)</script>")])
    notice = notice_html(said)
    assert "<script" not in notice and "<img" not in notice and "&lt;script&gt;" in notice
    assert notice_html([]) == ""


def test_values_that_bound_each_other_are_settled(share: Share) -> None:
    """And what was changed by it is said, once, with what is taken in the end."""
    share.settle(lambda taken: {"steps": min(taken["steps"], 10)} if taken.get("sampler") == "heun" else {})
    heun, fits = ("sampler", "heun"), "steps does not fit the rest; 10 is taken"
    assert share.read([("steps", "20"), heun]) == ({"steps": 10, "sampler": "heun"}, [fits])
    assert share.read([("steps", "9"), heun]) == ({"steps": 9, "sampler": "heun"}, [])
    assert share.read([("steps", "20"), ("sampler", "ddim")]) == ({"steps": 20, "sampler": "ddim"}, [])
    limit = "steps is '999', beyond its limit; 10 is taken"
    assert share.read([("steps", "999"), heun]) == ({"steps": 10, "sampler": "heun"}, [limit])
    share.settle(lambda taken: {"model": gr.update(value=0)} | ({"shown": ["a"]} if "shown" in taken else {}))
    _, said = share.read([("model", "big"), ("shown", "b,a")])
    assert said == ["model does not fit the rest; small is taken", "shown does not fit the rest; a is taken"]


def test_a_key_stands_for_one_control(share: Share) -> None:
    with gr.Blocks(), pytest.raises(AssertionError, match="'steps' is taken"):
        share.add("steps", gr.Number(), whole(1, 2))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """The bundled models, with two tables and a file that is none."""
    tables = tmp_path_factory.mktemp("tables")
    save_family(tables / "toys.json", made_up())
    one = [("only, <b>", 10_000_000)]
    save_family(
        tables / "others.json", made_up("others", one, samplers=["heun"], guidances=[(1.5, (1.0, 9.0))])
    )
    (tables / "wrong.json").write_text("{}")
    return open_studio(limits=Limits(models=2), tables=tables)


@pytest.fixture(scope="module")
def address(studio: Studio) -> Share:
    """That of the real page."""
    found: list[Share] = []
    wire = Share.wire
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Share, "wire", lambda self, demo: (found.append(self), wire(self, demo)))
        build(studio)
    return found[0]


def test_nothing_in_an_address_is_an_error_of_the_page(address: Share) -> None:
    """And what is taken, each control accepts as its value."""
    controls = {entry.key: entry.component for entry in address.entries}
    for key in address.keys:
        for text in NASTY:
            taken, _ = address.read([(key, text)])
            for name in set(taken) & set(controls):
                value, control = plain(taken[name]), controls[name]
                control.postprocess(value)
                if isinstance(control, gr.Slider):
                    top = (taken[name] if isinstance(taken[name], dict) else {}).get(
                        "maximum", control.maximum
                    )
                    assert control.minimum <= value <= top, (name, text)
                if isinstance(control, gr.Radio | gr.CheckboxGroup):
                    update = taken[name] if isinstance(taken[name], dict) else {}
                    choices = update.get("choices", control.choices)
                    offered = [each[1] if isinstance(each, tuple) else each for each in choices]
                    ticked = value if isinstance(control, gr.CheckboxGroup) else [value]
                    assert all(one in offered or one is None for one in ticked), (name, text)
                if isinstance(control, gr.Dropdown) and not control.allow_custom_value:
                    assert value in [choice for _, choice in control.choices], (name, text)


def test_explore_is_part_of_the_address_and_fits_its_model(address: Share, studio: Studio) -> None:
    unet = next(rung for rung in studio.rungs if rung.name == "UNet-C-solids")
    pairs = {"model": unet.name, "class": "999", "sampler": "heun", "cache": "3", "guided-to": "9999"}
    taken, said = address.read(pairs.items())
    assert studio.at(taken["model"]["value"]) is unet
    assert plain(taken["class"]) == 9 and taken["sampler"] == "ddim"
    assert taken["cache"] == 1  # a U-Net's steps cannot be cached
    fits = {"class": 9, "sampler": "ddim", "cache": 1}
    assert all(f"{key} does not fit the rest; {value} is taken" in said for key, value in fits.items())
    assert len(said) == 4
    assert taken["guided-to"] == LAST and any("guided-to" in each for each in said)


def test_the_budgets_slider_has_the_ends_of_its_family(address: Share) -> None:
    most = address.read([("budget-at", "400")])[0]["budget-at"]
    assert 20 < most < 400 and address.read([("budget-at", str(most - 1))])[0]["budget-at"] == most - 1
    assert address.read([("budget-at", "-999")])[0]["budget-at"] == 0
    assert address.read([("budget-family", "solids")])[0]["budget-at"] == most // 2


def test_the_chart_is_part_of_the_address_and_fits_its_table(address: Share) -> None:
    pairs = {"chart-family": "toys", "chart-view": "model", "chart-sampler": "ddpm", "chart-guidance": "3"}
    pairs |= {"chart-caches": "2,1", "chart-steps": "8", "chart-pick": "big,8,ddim,none,1"}
    pairs |= {"chart-hidden": "c2,small", "chart-cost": "seconds"}
    taken, said = address.read(pairs.items())
    values = {key: plain(value) for key, value in taken.items()}
    assert said == [] and values == pairs | {"chart-caches": [2, 1], "chart-steps": 8}
    taken, said = address.read((pairs | {"chart-family": "others"}).items())
    values = {key: plain(value) for key, value in taken.items()}
    assert (values["chart-sampler"], values["chart-pick"], values["chart-hidden"]) == ("heun", "", "c2")
    for key, value in {
        "sampler": "heun",
        "guidance": "1.5 at levels 1–9",
        "pick": "none",
        "hidden": "c2",
    }.items():
        assert f"chart-{key} does not fit the rest; {value} is taken" in said
    assert len(said) == 4
    odd = "only, <b>,4,heun,1.5 at levels 1–9,2"
    taken, said = address.read(
        [("chart-family", "others"), ("chart-pick", odd), ("chart-hidden", "only%2C%20%3Cb%3E")]
    )
    assert (
        said == []
        and plain(taken["chart-pick"]) == odd
        and plain(taken["chart-hidden"]) == "only%2C%20%3Cb%3E"
    )
    for key, text in (("pick", "big,8,ddim,none,9"), ("hidden", "m0"), ("steps", "7"), ("caches", "1,7")):
        assert len(address.read([(f"chart-{key}", text)])[1]) == 1, key
    taken, said = address.read([("chart-family", "wrong"), ("chart-steps", "8")])
    assert plain(taken["chart-family"]) == "wrong" and said == [
        "chart-steps does not fit the rest; none is taken"
    ]


def test_what_is_drawn_follows_from_the_address(address: Share) -> None:
    """And nothing from it is drawn that a table does not have, whatever it says."""
    _, draw = next(extra for extra in address.extras)
    for key in [key for key in address.keys if key.startswith("chart-")]:
        for text in [*NASTY, "wrong", "others", "toys"]:
            taken, _ = address.read([(key, text)])
            drawn = list(draw(taken).values())
            assert not taken or any("<svg" in str(one) or "train.sweep" in str(one) for one in drawn)
            assert all("<script>" not in str(one) for one in drawn)
    pairs = {"chart-family": "toys", "chart-pick": "big,8,ddim,none,1", "chart-hidden": "small,frontier"}
    taken, _ = address.read(pairs.items())
    _, chart, _, pictures, opened = draw(taken).values()
    assert 'data-hidden="small frontier"' in chart and "big, 8 steps" in pictures and not opened["visible"]
