"""The training loop: it learns, leaves what it promises, and ends alike whether interrupted or not."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dit import weights
from dit.diffusion import training_losses
from dit.dit import DiT
from dit.layers import sincos_position_table
from dit.pipeline import Pipeline
from dit.presets import preset
from dit.settings import SampleSettings
from train import objective
from train.__main__ import main
from train.batches import Batches
from train.changes import changes_of
from train.checkpoint import checkpoints, step_of
from train.config import TrainConfig
from train.data import SolidsData, open_data
from train.hardware import Hardware, select
from train.loop import train
from train.objective import draw_timesteps
from train.order import Order
from train.recipes import RECIPES
from train.record import Recorder
from train.solids import CLASSES
from train.state import fresh_state

CPU = select("cpu", "fp32")

# Small enough for a second; log_every does not divide checkpoint_every, so that resuming falls between lines.
TINY = TrainConfig(
    model="DiT-N/8",
    depth=2,
    prediction="v",
    image_size=16,
    num_pictures=64,
    batch_size=8,
    total_steps=12,
    lr=1e-3,
    lr_warmup_steps=4,
    log_every=3,
    sample_every=1000,
    checkpoint_every=4,
    tracker="none",
    micro_batch=8,  # else the memory of a step is estimated first
)


@pytest.fixture(scope="module", autouse=True)
def quick_grids():
    """Drawn with few network calls: drawing would take most of these tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.grid.CALLS", 4)
        yield


class Interrupted(Hardware):
    """Stops the run, as a second Ctrl-C does, before optimizer step `stop` (counted from 0)."""

    def __init__(self, stop: int) -> None:
        super().__init__(CPU.device, CPU.bf16)
        self.stop = stop

    def seed(self, seed: int, step: int) -> None:
        if step == self.stop:
            raise KeyboardInterrupt
        super().seed(seed, step)


def interrupt(config: TrainConfig, run_dir: Path, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, run_dir, Interrupted(stop))


def content(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that one process wrote: model.*, ema.0.*, optimizer.exp_avg.*, ..."""
    (file,) = checkpoint.glob("*.safetensors")
    return load_file(file)


def metrics(run_dir: Path) -> list[dict[str, float]]:
    """The lines, without the entries that a clock decides."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("images_per_second") > 0 and row.pop("mfu") > 0 for row in rows)
    return rows


def identical(one: Path, other: Path) -> bool:
    """Whether two weights files hold the same bits."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of TINY in one go."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(TINY, run_dir, CPU) == run_dir / "weights.safetensors"
    return run_dir


# --- what a run leaves ---


def test_a_run_leaves_its_config_metrics_samples_checkpoints_and_weights(finished):
    assert {path.name for path in finished.iterdir() if not path.name.startswith(".")} == {
        "config.json",
        "data.json",
        "metrics.jsonl",
        "samples",
        "checkpoints",
        "weights.safetensors",
    }
    assert TrainConfig(**json.loads((finished / "config.json").read_text())) == TINY
    assert [path.name for path in checkpoints(finished)] == ["step_00000008", "step_00000012"]
    assert len(list((finished / "checkpoints").iterdir())) == 2  # no temporaries


def test_metrics(finished):
    rows = metrics(finished)
    assert {3, 6, 9, 12} <= {row["step"] for row in rows}
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    for row in rows:
        assert row["loss"] == pytest.approx(row["mse"] + row["vb"])
        assert row["lr"] == TINY.lr_at(row["step"] - 1)
        assert 0.1 < row["mse"] < 1 and 0 < row["vb"] < 0.5


def test_the_grid_shows_eight_pictures_of_each_class(finished):
    """Rows are classes, columns seeds; the pictures are those of the averaged weights."""
    image = Image.open(finished / "samples" / "step_00000012.png")
    assert image.size == (8 * 33 - 1, 10 * 33 - 1) and image.mode == "RGB"  # doubled, and a line between
    whole = np.pad(np.asarray(image), ((0, 1), (0, 1), (0, 0)))
    tiles = whole.reshape(10, 33, 8, 33, 3).swapaxes(1, 2)[:, :, :32:2, :32:2].astype(int)
    assert len({tile.tobytes() for row in tiles for tile in row}) == 80
    pipeline = Pipeline(weights.load(finished / "weights.safetensors"))
    wish = SampleSettings(classes=[9, 0], seeds=[2, 7], steps=4, guidance_scale=2.0)
    drawn = pipeline.generate(wish).x0.astype(int)
    assert abs(drawn[0] - tiles[9, 2]).max() <= 1 and abs(drawn[1] - tiles[0, 7]).max() <= 1


def test_weights_say_where_they_come_from(finished):
    config, provenance = weights.describe(finished / "weights.safetensors")
    assert config == preset("DiT-N/8", depth=2, input_size=16, in_channels=3, num_classes=10, prediction="v")
    assert provenance["images_seen"] == 12 * 8
    assert TrainConfig(**provenance["recipe"]) == TINY
    assert provenance["classes"][:2] == list(CLASSES)[:2] and len(provenance["classes"]) == 10
    assert provenance["dataset"] == "solids"
    assert provenance["commit"] and provenance["hardware"].startswith("cpu")


def test_the_weights_are_the_average(finished):
    kept, written = content(checkpoints(finished)[-1]), load_file(finished / "weights.safetensors")
    assert set(written) - {"pos_embed"} == {name[6:] for name in kept if name.startswith("ema.0.")}
    for name in set(written) - {"pos_embed"}:
        assert torch.equal(written[name], kept[f"ema.0.{name}"])
    last = "final_layer.linear.weight"
    assert not torch.equal(kept[f"ema.0.{last}"], kept[f"model.{last}"])


def test_the_position_table_is_not_trained(finished):
    written = load_file(finished / "weights.safetensors")
    assert torch.equal(written["pos_embed"][0], sincos_position_table(128, 2))
    assert not any("pos_embed" in name for name in content(checkpoints(finished)[-1]))


@pytest.fixture
def no_samples(monkeypatch) -> None:
    """Leave out the grids, which take most of a tiny run's time, where nobody looks at them."""
    monkeypatch.setattr(Recorder, "sample", lambda self: None)


def test_as_many_checkpoints_stay_as_asked_for(tmp_path, no_samples):
    config = replace(TINY, checkpoint_every=2, keep_checkpoints=3, total_steps=9)
    train(config, tmp_path, CPU)
    assert [path.name for path in checkpoints(tmp_path)] == [f"step_0000000{step}" for step in (6, 8, 9)]


def test_samples_are_drawn_as_often_as_asked_for_and_do_not_disturb(finished, tmp_path):
    path = train(replace(TINY, sample_every=5), tmp_path, CPU)
    drawn = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert drawn == [f"step_{step:08d}.png" for step in (5, 10, 12)]
    assert identical(path, finished / "weights.safetensors") and metrics(tmp_path) == metrics(finished)


# --- learning ---


def test_it_learns_a_few_pictures_by_heart(tmp_path, no_samples):
    config = replace(
        TINY,
        model="DiT-N/4",
        depth=0,  # its own
        prediction="epsilon",
        num_pictures=8,
        flip=False,
        total_steps=60,
        lr=3e-3,
        lr_warmup_steps=0,
        log_every=10,
        checkpoint_every=1000,
    )
    path = train(config, tmp_path, CPU)
    first, *_, last = (row["mse"] for row in metrics(tmp_path))
    assert first > 0.6 and last < first / 3

    # The average learned too, and it is not the last weights.
    x0, y = SolidsData(8, 16).fetch(np.arange(8), np.zeros(8, bool), np.arange(8))
    torch.manual_seed(0)
    t, noise = torch.randint(0, 1000, (8 * 16,)), torch.randn(8 * 16, 3, 16, 16)
    with torch.no_grad():
        losses = training_losses(weights.load(path), x0.repeat(16, 1, 1, 1), t, y.repeat(16), noise)
    assert losses["mse"].mean() < 0.4  # untrained: 1


def test_the_first_step_is_the_one_of_the_textbook(tmp_path, no_samples):
    """Model, batch, noise and AdamW by hand, from the seed: the loop does this and nothing else."""
    config = replace(TINY, total_steps=1, lr_warmup_steps=0, seed=3, weight_decay=0.1, class_dropout_prob=0.0)
    train(config, tmp_path, CPU)
    done = content(checkpoints(tmp_path)[-1])

    data = open_data(config)
    network = config.network(data.info)
    model = fresh_state(config, network, CPU).model
    batch = Batches(config, network, data, range(8))(0)
    training_losses(model, batch.x0, batch.t, batch.y, batch.noise)["loss"].mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad  # AdamW's first step has the gradient's sign as its direction
            stepped = parameter * (1 - 1e-3 * 0.1) - 1e-3 * gradient / (gradient.abs() + 1e-8)
            expected = stepped.detach()
            torch.testing.assert_close(done[f"model.{name}"], expected, atol=1e-6, rtol=1e-5, msg=name)


CHANGED = {"lr": 2e-3, "lr_warmup_steps": 0, "lr_decay_steps": 6, "beta2": 0.9, "weight_decay": 1.0}
CHANGED |= {"grad_clip": 0.01, "ema_decay": 0.2, "class_dropout_prob": 0.5, "flip": False, "seed": 1}
CHANGED |= {"precision": "bf16", "timesteps": "logit-normal", "prediction": "epsilon", "num_pictures": 80}


@pytest.mark.parametrize("field", CHANGED)
def test_every_setting_has_an_effect(field, finished, tmp_path, no_samples):
    """The same run but for one setting ends elsewhere."""
    config = replace(TINY, **{field: CHANGED[field]})
    path = train(config, tmp_path, select("cpu", config.precision))
    assert not identical(path, finished / "weights.safetensors")


@pytest.mark.parametrize("how", ["uniform", "logit-normal"])
def test_timesteps_are_drawn_from_all_of_them(how):
    torch.manual_seed(0)
    t = draw_timesteps(how, 400_000)
    assert t.shape == (400_000,) and t.dtype == torch.int64 and t.device.type == "cpu"
    counts = torch.bincount(t, minlength=1000)
    assert (
        len(counts) == 1000 and counts.min() > 50
    )  # of 400 if all are alike, of 100 in a quarter of the draws


def test_timesteps_are_uniform_or_dwell_on_the_middle():
    torch.manual_seed(0)
    uniform, middle = (draw_timesteps(how, 400_000).float() for how in ("uniform", "logit-normal"))
    assert torch.histc(uniform, 10, 0, 1000).sub(40_000).abs().max() < 1000  # five standard deviations
    # Three quarters are sigmoid(N(-0.7, 1)), whose quartiles are at t = 202, 332 and 494.
    inside = ((middle > 202) & (middle <= 494)).float().mean().item()
    assert inside == pytest.approx(0.75 * 0.5 + 0.25 * 0.292, abs=0.005)
    below = (middle <= 332).float().mean().item()
    assert below == pytest.approx(0.75 * 0.5 + 0.25 * 0.332, abs=0.005)


# --- interruption ---


def test_the_same_command_twice_is_the_same_run(finished, tmp_path, no_samples):
    path = train(TINY, tmp_path, CPU)
    assert identical(path, finished / "weights.safetensors") and metrics(tmp_path) == metrics(finished)


@pytest.mark.parametrize("stops", [[0], [3], [4], [5], [11], [5, 6, 10]], ids=str)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(stops, finished, tmp_path):
    for stop in stops:
        interrupt(TINY, tmp_path, stop)
    path = train(TINY, tmp_path, CPU)
    assert identical(path, finished / "weights.safetensors")
    assert metrics(tmp_path) == metrics(finished)
    one, other = (run / "samples" / "step_00000012.png" for run in (tmp_path, finished))
    assert one.read_bytes() == other.read_bytes()
    ours, theirs = (content(checkpoints(run)[-1]) for run in (tmp_path, finished))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "forgotten", ["model.", "ema.0.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.", "step"]
)
def test_a_checkpoint_that_forgets_something_would_be_noticed(forgotten, finished, tmp_path, no_samples):
    """That the test above can fail: each part of a checkpoint is needed to end at the same place."""
    interrupt(TINY, tmp_path, 9)
    last = checkpoints(tmp_path)[-1]
    (file,) = last.glob("*.safetensors")
    fresh = fresh_state(TINY, TINY.network(), CPU).tensors()
    kept = {
        name: fresh[name] if name.startswith(forgotten) else value for name, value in load_file(file).items()
    }
    with safe_open(file, "pt") as opened:
        save_file(kept, file, opened.metadata())
    header = json.loads((last / "state.json").read_text())
    header["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    header["step"] -= forgotten == "step"
    (last / "state.json").write_text(json.dumps(header))
    assert not identical(train(TINY, tmp_path, CPU), finished / "weights.safetensors")


def test_a_killed_process_goes_on_where_it_was(project, tmp_path):
    """SIGKILL at a moment of no one's choosing, then the same command again."""
    settings = {"image_size": 16, "num_pictures": 64, "batch_size": 8, "compile": "no"}
    settings |= {"checkpoint_every": 5, "log_every": 3, "sample_every": 10**6, "precision": "fp32"}
    settings |= {"tracker": "none", "depth": 2, "micro_batch": 8}
    run_dir = tmp_path / "killed"
    command = ["smoke", f"--run-dir={run_dir}", "--device=cpu"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    log = tmp_path / "log"
    with log.open("w") as file:
        endless = [sys.executable, "-m", "train", *command, "--total-steps=1000000"]
        process = subprocess.Popen(endless, cwd=project, stderr=file)
    deadline = time.monotonic() + 200
    try:
        while not checkpoints(run_dir) or step_of(checkpoints(run_dir)[-1]) < 10:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    settings["total_steps"] = step_of(checkpoints(run_dir)[-1]) + 10
    assert main([*command, f"--total-steps={settings['total_steps']}"]) == 0
    whole = train(replace(RECIPES["smoke"], **settings), tmp_path / "whole", CPU)
    assert identical(whole, run_dir / "weights.safetensors")
    assert metrics(run_dir) == metrics(tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(finished, tmp_path, no_samples):
    train(TINY, tmp_path, CPU)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert train(TINY, tmp_path, CPU) == tmp_path / "weights.safetensors"
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert set(after) == set(before)
    assert identical(tmp_path / "weights.safetensors", finished / "weights.safetensors")


@pytest.mark.parametrize("stage", ["save_weights", "sample"])
def test_a_run_that_dies_in_its_last_step_still_gets_its_weights_and_samples(
    stage, finished, tmp_path, monkeypatch
):
    original = getattr(Recorder, stage)

    def dying(self):
        if self.state.step == TINY.total_steps:
            raise KeyboardInterrupt
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, stage, dying)
        with pytest.raises(KeyboardInterrupt):
            train(TINY, tmp_path, CPU)
    path = train(TINY, tmp_path, CPU)
    assert identical(path, finished / "weights.safetensors")
    assert weights.describe(path)[1]["images_seen"] == 12 * 8
    assert (tmp_path / "samples" / "step_00000012.png").exists()
    assert metrics(tmp_path) == metrics(finished)


def test_a_run_can_be_made_longer(tmp_path, no_samples):
    longer = replace(TINY, total_steps=16)
    train(replace(TINY, total_steps=8), tmp_path / "grown", CPU)
    grown = train(longer, tmp_path / "grown", CPU)
    assert identical(grown, train(longer, tmp_path / "whole", CPU))
    assert json.loads((tmp_path / "grown" / "config.json").read_text())["total_steps"] == 16


def test_what_is_set_anew_on_the_way_is_recorded(tmp_path, no_samples):
    train(replace(TINY, total_steps=4), tmp_path, CPU)
    train(replace(TINY, total_steps=4), tmp_path, CPU)
    changed = replace(TINY, total_steps=6, timesteps="logit-normal")
    train(changed, tmp_path, CPU)
    path = train(replace(changed, log_every=1), tmp_path, CPU)
    expected = [
        {"after": "step_00000004", "set": {"timesteps": "logit-normal", "total_steps": 6}},
        {"after": "step_00000006", "set": {"log_every": 1}},
    ]
    lines = (tmp_path / "changes.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    provenance = weights.describe(path)[1]
    assert provenance["changes"] == expected[:1]  # those up to its last step
    assert provenance["recipe"]["timesteps"] == "logit-normal"


def test_another_recipe_in_the_same_folder_is_refused_and_the_difference_named(finished):
    before = (finished / "config.json").read_text()
    with pytest.raises(ValueError, match="holds another run: .*--run-dir") as error:
        train(replace(TINY, lr=5e-4, batch_size=4, total_steps=20), finished, CPU)
    assert "lr was 0.001, now 0.0005" in str(error.value)
    assert "batch_size was 8, now 4" in str(error.value)
    assert "total_steps" not in str(error.value)
    assert (finished / "config.json").read_text() == before


def test_a_folder_in_use_is_refused(tmp_path, no_samples):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match=f"{tmp_path} is in use"):
        train(TINY, tmp_path, CPU)
    train(replace(TINY, total_steps=1), tmp_path, CPU)


def test_a_run_that_ends_in_an_error_lets_go_of_its_folder(finished, tmp_path, no_samples):
    with pytest.raises(KeyboardInterrupt) as kept:  # keeping the error keeps the frames of the run
        train(TINY, tmp_path, Interrupted(5))
    assert identical(train(TINY, tmp_path, CPU), finished / "weights.safetensors")
    assert kept.type is KeyboardInterrupt


@pytest.mark.parametrize("what", ["cut", "changed", "gone", "state", "no state"])
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_serves(
    what, finished, tmp_path, no_samples, capsys
):
    interrupt(TINY, tmp_path, 9)
    last = checkpoints(tmp_path)[-1]
    (file,) = last.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    if what == "cut":
        file.write_bytes(data[:1000])
    elif what == "changed":
        data[-5] ^= 1
        file.write_bytes(data)
    elif what == "gone":
        file.unlink()
    elif what == "no state":
        (last / "state.json").unlink()
    else:
        (last / "state.json").write_text('{"format": 2, "st')
    assert identical(train(TINY, tmp_path, CPU), finished / "weights.safetensors")
    assert str(last) in capsys.readouterr().err
    assert (last.parent / f"damaged_{last.name}").is_dir()  # nothing is lost
    [change] = changes_of(tmp_path)
    assert change["put_aside"] == last.name and change["why"] and change["after"] < last.name


def test_if_all_checkpoints_are_damaged_the_run_does_not_begin_anew(tmp_path, no_samples):
    interrupt(TINY, tmp_path, 9)
    for checkpoint in checkpoints(tmp_path):
        next(checkpoint.glob("*.safetensors")).write_bytes(b"")
    for _ in range(2):  # the second time too, as a scheduler does by itself
        with pytest.raises(ValueError, match="all checkpoints are damaged"):
            train(TINY, tmp_path, CPU)
    assert (tmp_path / "metrics.jsonl").read_text()


def test_a_checkpoint_of_a_newer_version_is_left_alone(tmp_path, no_samples):
    interrupt(TINY, tmp_path, 9)
    state = checkpoints(tmp_path)[-1] / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": 3}))
    with pytest.raises(ValueError, match="format 3, but this version writes format 2.*--run-dir"):
        train(TINY, tmp_path, CPU)
    assert state.exists()


def test_a_run_of_an_older_version_is_not_begun_anew(tmp_path, no_samples):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_00000004.pt").write_bytes(b"old")
    with pytest.raises(ValueError, match="checkpoints of an older version.*--run-dir"):
        train(TINY, tmp_path, CPU)


# --- numbers that are none ---


class Failing:
    """Makes the losses of some steps none; steps are counted from 0, also those of a run that went back."""

    def __init__(self, monkeypatch, bad: Callable[[int], bool]) -> None:
        self.calls = 0
        original = objective.losses

        def losses(config, model, batch):
            terms, self.calls = original(config, model, batch), self.calls + 1
            factor = float("nan") if bad(self.calls - 1) else 1.0
            return {name: value * factor for name, value in terms.items()}

        monkeypatch.setattr("train.state.losses", losses)


def finite(checkpoint: Path) -> bool:
    return all(tensor.isfinite().all() for tensor in content(checkpoint).values())


def test_a_step_whose_loss_is_none_is_skipped_and_counted(finished, tmp_path, monkeypatch, no_samples):
    Failing(monkeypatch, lambda call: call in (5, 6))
    path = train(replace(TINY, checkpoint_every=1, keep_checkpoints=20), tmp_path, CPU)
    states = {step_of(saved): saved for saved in checkpoints(tmp_path)}
    assert set(states) == {*range(1, 13)} - {6, 7}  # what was skipped is not worth a checkpoint
    assert all(finite(saved) for saved in states.values())
    state = json.loads((states[12] / "state.json").read_text())
    assert (state["skipped"], state["in_row"], state["detours"]) == (2, 0, 0)
    rows = metrics(tmp_path)
    assert [row.get("skipped") for row in rows] == [None] * 5 + [1] + [2] * 6
    assert "loss" not in rows[5] and rows[7]["loss"] > 0
    assert not identical(path, finished / "weights.safetensors")


def test_a_skipped_step_changes_nothing(tmp_path, monkeypatch, no_samples):
    Failing(monkeypatch, lambda call: call == 3)
    config = replace(TINY, checkpoint_every=1, keep_checkpoints=20, max_skipped=2, log_every=1, total_steps=6)
    with monkeypatch.context() as patch:
        kept = {}
        original = Recorder.step

        def noting(self, *arguments):
            original(self, *arguments)
            kept[self.state.step] = {name: value.clone() for name, value in self.state.tensors().items()}

        patch.setattr(Recorder, "step", noting)
        train(config, tmp_path, CPU)
    assert all(torch.equal(kept[3][name], kept[4][name]) for name in kept[3])
    assert not all(torch.equal(kept[4][name], kept[5][name]) for name in kept[3])


def test_after_too_many_of_them_the_run_goes_back_and_takes_other_noise(tmp_path, monkeypatch, no_samples):
    Failing(
        monkeypatch, lambda call: 5 <= call < 9
    )  # steps 6 to 9, of which the last checkpoint knows nothing
    config = replace(TINY, log_every=1, max_skipped=3)
    train(config, tmp_path, CPU)
    assert [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()] == [
        {"after": "step_00000004", "went_back_from": 8}
    ]
    assert [row["step"] for row in metrics(tmp_path)] == [*range(1, 13)]
    state = json.loads((checkpoints(tmp_path)[-1] / "state.json").read_text())
    assert (state["step"], state["detours"], state["in_row"]) == (12, 1, 0)


def test_a_long_row_is_noticed_also_between_two_lines(tmp_path, monkeypatch, no_samples):
    """Which here is the one of the checkpoint at step 8; a good step would have ended the row by the next."""
    Failing(monkeypatch, lambda call: 4 <= call < 8)
    train(replace(TINY, log_every=12, checkpoint_every=4, max_skipped=4), tmp_path, CPU)
    noted = json.loads((tmp_path / "changes.jsonl").read_text())
    assert noted == {"after": "step_00000004", "went_back_from": 8}


def test_a_run_that_cannot_be_saved_ends_with_advice(tmp_path, monkeypatch, no_samples):
    Failing(monkeypatch, lambda call: call >= 5)
    with pytest.raises(FloatingPointError) as error:
        train(replace(TINY, log_every=1, max_skipped=3), tmp_path, CPU)
    message = str(error.value)
    pictures = Order(64, 8, 0).indices(6).tolist()
    assert "3 steps in a row" in message and "3 times" in message and "step 4" in message
    assert str(pictures) in message and "--lr" in message and "--grad-clip" in message
    (good,) = checkpoints(tmp_path)
    assert good.name == "step_00000004" and finite(good)


@pytest.mark.parametrize("lr", [1e30, 1e38, 1e300])
def test_no_checkpoint_is_left_with_numbers_that_are_none(lr, tmp_path, no_samples):
    """The step that blows up has a finite loss still: its weights have not been tried when they are saved."""
    config = replace(TINY, lr=lr, checkpoint_every=1, log_every=1, lr_warmup_steps=0)
    with pytest.raises(FloatingPointError, match="not finite"):
        train(config, tmp_path, CPU)
    assert all(finite(path) for path in checkpoints(tmp_path))
    if (tmp_path / "weights.safetensors").exists():
        assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "weights.safetensors").values())


def test_without_a_checkpoint_the_message_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match="no checkpoint yet"):
        train(replace(TINY, lr=1e30, lr_warmup_steps=0, max_skipped=2), tmp_path, CPU)
    assert checkpoints(tmp_path) == [] and not (tmp_path / "weights.safetensors").exists()


def test_models_and_recipes_agree():
    """A recipe makes a model of its own picture size, with a null class for guidance."""
    model = fresh_state(TINY, TINY.network(), CPU).model
    assert isinstance(model, DiT) and model.training and model.config.has_null_class
    again = fresh_state(TINY, TINY.network(), CPU).model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    other = fresh_state(replace(TINY, seed=1), TINY.network(), CPU).model
    assert not torch.equal(model.x_embedder.proj.weight, other.x_embedder.proj.weight)


@pytest.mark.parametrize("name", ["config.json", "changes.jsonl"])
def test_a_damaged_note_of_the_run_is_named(name, tmp_path, no_samples):
    train(replace(TINY, total_steps=1), tmp_path, CPU)
    (tmp_path / name).write_text('{"model": "DiT')
    with pytest.raises(ValueError, match=f"{name}.*expected.*JSON.*mend it"):
        train(replace(TINY, total_steps=2), tmp_path, CPU)
    assert (tmp_path / name).read_text() == '{"model": "DiT'


def test_fewer_steps_than_are_done_are_refused(tmp_path, no_samples):
    train(replace(TINY, total_steps=3), tmp_path, CPU)
    with pytest.raises(ValueError, match="total_steps is 2, but .* holds 3 steps.*--run-dir"):
        train(replace(TINY, total_steps=2), tmp_path, CPU)
    assert json.loads((tmp_path / "config.json").read_text())["total_steps"] == 3


def test_weights_that_were_lost_are_written_again(tmp_path, no_samples):
    path = train(replace(TINY, total_steps=3), tmp_path, CPU)
    before = load_file(path)
    path.unlink()
    after = load_file(train(replace(TINY, total_steps=3), tmp_path, CPU))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_before_the_first_checkpoint_every_setting_may_change(tmp_path, no_samples):
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path, Interrupted(2))
    train(replace(TINY, lr=5e-4, total_steps=1), tmp_path, CPU)
    assert json.loads((tmp_path / "config.json").read_text())["lr"] == 5e-4
    assert not (tmp_path / "changes.jsonl").exists()


def test_a_run_from_before_a_setting_was_there_goes_on(tmp_path, no_samples):
    train(replace(TINY, total_steps=1), tmp_path, CPU)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["grad_clip"]  # 0 by default
    (tmp_path / "config.json").write_text(json.dumps(config))
    train(replace(TINY, total_steps=2), tmp_path, CPU)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="grad_clip was 0.0, now 1.0"):
        train(replace(TINY, total_steps=2, grad_clip=1.0), tmp_path, CPU)


def test_a_change_noted_before_a_kill_is_not_noted_again(tmp_path, no_samples):
    train(replace(TINY, total_steps=1), tmp_path, CPU)
    before = (tmp_path / "config.json").read_text()
    train(replace(TINY, total_steps=1, log_every=1), tmp_path, CPU)
    (tmp_path / "config.json").write_text(before)  # as if killed between the note and the settings
    train(replace(TINY, total_steps=1, log_every=1), tmp_path, CPU)
    assert len((tmp_path / "changes.jsonl").read_text().splitlines()) == 1


def test_half_a_checkpoint_of_a_killed_run_is_cleared_away(tmp_path, no_samples):
    (tmp_path / "checkpoints" / ".step_00000004.partial").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step_00000004.partial" / "shard.safetensors").write_bytes(b"half")
    train(replace(TINY, total_steps=1), tmp_path, CPU)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]


def test_the_speed_is_of_training_alone(tmp_path, monkeypatch):
    """By a clock of our own: a step takes 2 seconds, a grid of samples 1000."""
    now = [0.0]
    monkeypatch.setattr("train.record.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Hardware, "end_step", lambda self: now.append(now.pop() + 2))
    monkeypatch.setattr(Recorder, "sample", lambda self: now.append(now.pop() + 1000))
    train(replace(TINY, log_every=1, sample_every=1, total_steps=3), tmp_path, CPU)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["images_per_second"] for row in rows] == [TINY.batch_size / 2] * 3
