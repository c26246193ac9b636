"""What is said of a run beforehand, against sums by hand; and how a step is cut."""

from dataclasses import replace

import pytest
import torch

from train.config import TrainConfig
from train.pictures import DataInfo
from train.plan import (
    Plan,
    device_memory,
    divisors,
    footprint_of,
    micro_batch_for,
    which_batch_would_fit,
)

INFO = DataInfo("solids", tuple("abcdefghij"), 3, 32)
CONFIG = TrainConfig(model="DiT-N/8", batch_size=48, total_steps=100, checkpoint_every=20, sample_every=50)


def test_the_whole_share_where_it_fits_and_the_largest_divisor_where_not():
    needed = footprint_of(CONFIG, INFO)
    assert micro_batch_for(CONFIG, INFO, 1, None) == 48
    assert micro_batch_for(CONFIG, INFO, 4, None) == 12
    assert micro_batch_for(CONFIG, INFO, 1, needed.total(48)) == 48
    assert micro_batch_for(CONFIG, INFO, 1, needed.total(48) - 1) == 24
    assert micro_batch_for(CONFIG, INFO, 1, needed.total(15)) == 12
    assert micro_batch_for(CONFIG, INFO, 2, needed.total(23)) == 12
    assert micro_batch_for(CONFIG, INFO, 1, needed.total(1)) == 1


def test_a_micro_batch_that_is_given_is_taken():
    assert micro_batch_for(replace(CONFIG, micro_batch=6), INFO, 2, 1) == 6
    with pytest.raises(
        ValueError, match="micro_batch is 7, .* the 24 pictures .* 2 devices .* 1, 2, 3, 4, 6"
    ):
        micro_batch_for(replace(CONFIG, micro_batch=7), INFO, 2, None)


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(ValueError, match="batch_size is 48, which 5 devices .* --batch-size 45 or 50"):
        micro_batch_for(CONFIG, INFO, 5, None)
    with pytest.raises(ValueError, match="batch_size is 2, which 4 devices .* --batch-size 4,"):
        micro_batch_for(replace(CONFIG, batch_size=2), INFO, 4, None)


def test_what_does_not_fit_says_what_would():
    needed = footprint_of(CONFIG, INFO)
    with pytest.raises(
        ValueError, match="DiT-N/8 needs .* single picture.* but a device has .*--remat.*fsdp"
    ):
        micro_batch_for(CONFIG, INFO, 1, needed.total(1) - 1)
    with pytest.raises(ValueError) as error:  # without any activations it would not fit either
        micro_batch_for(CONFIG, INFO, 1, needed.fixed // 2)
    assert "--remat" not in str(error.value) and "--parallel fsdp and several devices" in str(error.value)
    less = replace(CONFIG, remat=True, parallel="fsdp", extra_ema_decays=(0.9,))
    with pytest.raises(ValueError, match="try fewer --extra-ema-decays; or a smaller --model"):
        micro_batch_for(less, INFO, 2, 1000)


def test_settings_that_save_memory_do():
    plain = footprint_of(CONFIG, INFO)
    assert footprint_of(replace(CONFIG, remat=True), INFO).picture < 0.6 * plain.picture
    assert footprint_of(CONFIG, INFO, bf16=True).picture < 0.8 * plain.picture
    assert footprint_of(replace(CONFIG, parallel="fsdp"), INFO, 4).fixed < 0.6 * plain.fixed
    assert footprint_of(CONFIG, INFO, 4) == plain  # a copy on each device
    more = footprint_of(replace(CONFIG, extra_ema_decays=(0.9, 0.99)), INFO)
    assert more.averages == 3 * plain.averages


def test_after_running_out_of_memory():
    assert "48 pictures at once did not fit: set --micro-batch 24" in which_batch_would_fit(CONFIG, 1, 48)
    assert "set --micro-batch 6," in which_batch_would_fit(CONFIG, 4, 12)
    last = which_batch_would_fit(CONFIG, 4, 1)
    assert "--micro-batch" not in last and "--remat" in last and "--parallel fsdp" in last


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12] and divisors(7) == [1, 7] and divisors(1) == [1]


def test_a_plan_in_numbers():
    config = replace(CONFIG, extra_ema_decays=(0.99,), keep_every=40)
    plan = Plan.of(config, INFO, 640, 2, 10**9, 100.0)
    weights, trained = 4 * plan.counted.parameters, 4 * plan.counted.trainable
    assert plan.micro_batch == 24 and plan.pictures_seen == 4800
    assert plan.checkpoint_bytes == 3 * weights + 2 * trained
    assert plan.checkpoints_kept == 3  # 40, and the last two: 80 and 100
    assert plan.disk_bytes == 4 * plan.checkpoint_bytes + 2 * weights + 2 * (10 * 8 * 32 * 32 * 3)


def test_what_is_kept_of_the_checkpoints():
    def kept(**settings: int) -> int:
        return Plan.of(replace(CONFIG, **settings), INFO, 640).checkpoints_kept

    assert kept(keep_checkpoints=2) == 2
    assert kept(keep_checkpoints=9) == 5
    assert kept(total_steps=10) == 1
    assert kept(keep_every=20) == 5


def test_a_plan_in_words():
    text = Plan.of(CONFIG, INFO, 640, 2, 10**9, 100.0).text()
    plan = Plan.of(CONFIG, INFO, 640, 2, 10**9, 100.0)
    assert f"DiT-N/8: {plan.counted.parameters:,} parameters" in text
    assert f"{plan.counted.macs / 1e9:,.3f} GMACs a picture" in text and text.count("1 MAC = 2 FLOPs") == 1
    assert f"{3 * plan.counted.macs * 4800 / 1e9:.3g} Gflops as the DiT paper counts" in text
    assert "100 of 48 pictures: 7.50 epochs of 640 pictures" in text
    assert "24 of the 24 pictures that each of 2 devices computes a step\n" in text
    assert "there is 1 GB" in text and "float32" in text
    assert "0.8 minutes at 100.0 images/s" in text
    cut = Plan.of(replace(CONFIG, micro_batch=8), INFO, 0, bf16=True).text()
    assert "8 of the 48 pictures that the device computes a step, 6 times, the gradients added up" in cut
    assert "4,800 pictures of a set of unknown length" in cut and "bf16 autocast" in cut
    assert "not measured" in cut and "what there is is unknown" in cut
    assert all(len(line) <= 110 for line in [*text.splitlines(), *cut.splitlines()])


def test_the_memory_of_this_machine(monkeypatch, tmp_path):
    there = device_memory(torch.device("cpu"))
    assert 10**8 < there < 10**14
    limit = tmp_path / "memory.max"
    limit.write_text("1000000000\n")
    monkeypatch.setattr("train.plan.CGROUP", limit)
    assert device_memory(torch.device("cpu")) == 750_000_000
    limit.write_text("max\n")
    assert device_memory(torch.device("cpu")) >= there
    assert device_memory(torch.device("meta")) is None
