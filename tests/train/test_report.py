"""The report of runs as folders have them: finished, running, broken off, old, hostile."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import torch
from PIL import Image

import dit
from dit.weights import save
from train.config import TrainConfig
from train.history import History
from train.report import chosen, duration, facts, main, page, resumed_after

SETTINGS = {"model": "DiT-N/8", "data": "solids", "batch_size": 32, "total_steps": 100, "lr": 1e-3, "seed": 0}


def run_folder(path: Path, steps: int = 100, **settings: object) -> Path:
    (path / "samples").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(SETTINGS | settings))
    rows = [
        {"step": s, "loss": 5 / s, "mse": 4 / s, "mse_q1": 0.1, "lr": 1e-3, "images_per_second": 160.0}
        for s in range(5, steps + 1, 5)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in range(10, steps + 1, 10):
        Image.new("RGB", (64, 80), (step, 0, 0)).save(path / "samples" / f"step_{step:08d}.png")
    return path


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.fetched, self.tags, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_finished_run(tmp_path):
    folder = run_folder(tmp_path / "run")
    text = page([History.of(folder)])
    shown = Page(text)
    assert all(source.startswith("data:image/") for source in shown.fetched) and len(shown.fetched) == 6
    assert "://" not in text and "@import" not in text and "url(" not in text
    assert "DiT-N/8 on solids, finished" in shown.text and "100 of 100" in shown.text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert "after step 10" in shown.text and "after step 100" in shown.text
    assert text.count("<svg") == 5  # loss, mse, its quartile, lr, speed
    assert "1.35 M" in shown.text and "0.014 GMACs" in shown.text and "3,200" in shown.text
    assert "20 s" in shown.text and "160.0" in shown.text


def test_settings_that_differ_stand_before_those_that_do_not(tmp_path):
    history = History.of(run_folder(tmp_path, extra_ema_decays=[]))
    assert set(history.unusual()) == {"model", "data", "batch_size", "total_steps", "lr"}
    shown = Page(page([history])).text
    assert shown.index("batch_size") < shown.index("settings as usual") < shown.index("seed")


def test_a_run_that_goes_on_with_a_half_written_line_and_picture(tmp_path):
    folder = run_folder(tmp_path, steps=40)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 45, "lo')
    (folder / "samples" / "step_00000050.png").write_bytes(b"\x89PNG half")
    history = History.of(folder)
    assert history.steps == 40 and history.notes == []
    shown = Page(page([history])).text
    assert "40% done" in shown and "40 of 100" in shown and "step_00000050.png" in shown


def test_lines_that_are_broken_or_come_twice(tmp_path):
    folder = run_folder(tmp_path, steps=20)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[1] = "{broken"
    lines += [json.dumps({"step": 8, "loss": 0.7})]  # of an older part
    lines += [json.dumps({"step": 20, "loss": 0.5, "mse": float("nan")}), json.dumps({"no": "step"}), "[1]"]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    history = History.of(folder)
    assert [row["step"] for row in history.rows] == [5, 8, 15, 20]
    assert history.series("loss")[-1] == (20, 0.5) and history.series("mse")[-1][0] == 15
    assert "metrics.jsonl: line 2 is not JSON" in Page(page([history])).text


def test_what_happened_on_the_way(tmp_path):
    folder = run_folder(tmp_path)
    change = {"after": "step_00000040", "set": {"total_steps": 100}}
    (folder / "changes.jsonl").write_text(json.dumps(change) + "\n")
    skipped = "".join(json.dumps({"picture": f"{i}.jpg", "why": "truncated"}) + "\n" for i in range(7))
    (folder / "skipped.jsonl").write_text(skipped)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 105, "loss": 0.1, "skipped": 2, "memory_bytes": 5e9}) + "\n")
    history = History.of(folder)
    text = page([history])
    shown = Page(text).text
    assert resumed_after(history) == [40] and text.count('class="mark"') > 0
    assert "after step_00000040" in shown and "total_steps set to 100" in shown
    assert "7 pictures unreadable" in shown and "4.jpg, truncated and 2 more" in shown
    assert "2, the last by step 105" in shown
    assert "memory bytes" in shown  # a number without a chart of its own


def test_everything_from_outside_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'"
    folder = run_folder(tmp_path / "<b>run&", note=evil, data=evil)
    (folder / "changes.jsonl").write_text(json.dumps({"after": evil, "set": {evil: evil}}) + "\n")
    (folder / "skipped.jsonl").write_text(json.dumps({"picture": evil}) + "\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 105, evil: 2.0}) + "\n")
    text = page([History.of(folder)])
    assert "script" not in Page(text).tags
    assert "<script" not in text and "<b>run" not in text and "&lt;b&gt;run&amp;" in text


def test_weights_tell_commit_hardware_and_results(tmp_path):
    folder = run_folder(tmp_path, data="elsewhere/pictures")
    assert "parameters" not in facts(History.of(folder))  # its classes are not known before there are weights
    torch.manual_seed(0)
    model = dit.build(TrainConfig(model="DiT-N/8").network())
    results = {"accuracy": {"mean": 0.987654321}, "frechet": 1.5}
    told = {"commit": "abc1234+", "hardware": "cpu, 2 threads", "results": results}
    save(folder / "weights.safetensors", model, told)
    shown = Page(page([History.of(folder)])).text
    for piece in ("abc1234+", "cpu, 2 threads", "accuracy, mean", "0.987654", "frechet", "1.35 M"):
        assert piece in shown
    (folder / "weights.safetensors").write_bytes(b"broken")
    assert "weights.safetensors" in Page(page([History.of(folder)])).text


def test_an_old_run_of_few_numbers(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model": "gone/1", "compile": False}))
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n')
    text = page([History.of(folder)])
    assert text.count("<svg") == 1 and text.count("<circle") == 1 and "finished" in Page(text).text


def test_runs_over_each_other(tmp_path):
    one, other = run_folder(tmp_path / "one"), run_folder(tmp_path / "other", steps=50)
    text = page([History.of(one), History.of(other)])
    shown = Page(text).text
    assert "one: loss" in shown and "other: loss" in shown and text.count("<svg") == 5
    colours = set(re.findall(r'<polyline class="(c\d)"', text))
    assert {"c0", "c1"} <= colours


def test_the_command(tmp_path, capsys):
    folder = run_folder(tmp_path / "run")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    picture = tmp_path / "report.png"
    assert main([str(folder), "--out", str(picture)]) == 0
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > 1000
        colours = {colour for _, colour in image.convert("RGB").getcolors(2**24)}
    assert (0x4F, 0x46, 0xE5) in colours and (100, 0, 0) in colours  # a curve, and the last grid
    capsys.readouterr()
    for arguments, message in (
        ([], "which run"),
        ([str(tmp_path)], "holds no run.*config.json"),
        ([str(folder), "--out", str(tmp_path / "report.pdf")], "must end in .html or .png"),
    ):
        assert main(arguments) == 1
        assert re.search(message, capsys.readouterr().err)


def test_a_run_that_has_told_nothing(tmp_path, capsys):
    folder = run_folder(tmp_path)
    for content in ("", '{"step": 5, "lo'):
        (folder / "metrics.jsonl").write_text(content)
        assert main([str(folder)]) == 1
        assert "no line of metrics yet" in capsys.readouterr().err
    (folder / "config.json").write_text("{")
    assert main([str(folder)]) == 1
    assert "expected the settings as JSON" in capsys.readouterr().err


def test_grids_from_first_to_last():
    grids = [(step, Path(str(step))) for step in range(40)]
    steps = [step for step, _ in chosen(grids)]
    assert len(steps) == 6 and steps[0] == 0 and steps[-1] == 39 and steps == sorted(set(steps))
    assert chosen(grids[:3]) == grids[:3] and chosen([]) == []


def test_durations():
    assert [duration(s) for s in (0.2, 75, 7325)] == ["0 s", "1 min 15 s", "2 h 2 min"]
