"""Data and plans, asked of the real trainer in a process of its own."""

import asyncio
import io

import pytest
from PIL import Image

from tests.train.picture_files import picture_folder
from ui import child
from ui.ask_trainer import data_html, estimate, look, plan_html
from ui.child import complaint
from ui.train_form import Form


def test_a_folder_is_looked_at(tmp_path):
    folder = picture_folder(tmp_path / "<b>")
    (folder / "a" / "0.png").write_text("none")
    told, preview = asyncio.run(look(str(folder), 8))
    assert told["classes"] == {"a": 4, "b": 4, "c": 4}
    with Image.open(io.BytesIO(preview)) as image:
        assert image.width == 8 * 65 - 1
    html = data_html(told, preview, ["notes <x>.txt"])
    assert "12 pictures; 3 classes; 8 × 8 pixels" in html and "<li>b 4</li>" in html
    assert "1 cannot be read" in html and "a/0.png" in html
    assert "1 files are no pictures" in html and "notes &lt;x&gt;.txt" in html and "<img src=" in html


def test_a_plan_is_asked_for():
    form = Form(preset="DiT-E/4", images=3200, image_size=16)
    told = asyncio.run(estimate(form.arguments()))
    assert told["pictures_seen"] == 3200 and told["seconds"] > 0
    html = plan_html(told, "python -m train <x>")
    assert "0.115 M" in html and "time on this machine" in html and "python -m train &lt;x&gt;" in html


def test_what_cannot_be_is_told_in_the_trainers_words(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        asyncio.run(look(str(tmp_path / "none" / "at" / "all"), 32))
    with pytest.raises(ValueError, match="patch|divisible|multiple"):
        asyncio.run(estimate(Form(preset="DiT-P/4", image_size=30).arguments()))


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(child, "LONGEST", 0.2)
    with pytest.raises(ValueError, match="no answer within 0 s"):
        asyncio.run(estimate(Form().arguments()))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("12%|█\rerror: lr is -1; it must be positive\n", "lr is -1; it must be positive"),
        ("╭─ Parsing error ─╮\n│ invalid choice │\n╰───╯\n", "invalid choice"),
        ("", "the command ended without a word"),
    ],
)
def test_of_all_that_is_said_the_complaint_counts(said, told):
    assert complaint(said) == told
