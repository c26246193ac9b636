"""The meter, against means that are taken the plain way."""

import math

import pytest
import torch
from torch import Tensor

from dit import edm
from train.metrics import Meter, level


def draws(formulation: str, n: int) -> Tensor:
    if formulation == "ddpm":
        return torch.randint(0, 1000, (n,))
    return edm.draw_sigmas(n) if formulation == "edm" else torch.rand(n)


def plain_quartile(t: Tensor, formulation: str) -> Tensor:
    """By the boundaries, written down: EDM's are exp(-1.2 -/+ 1.2 * 0.6745) and the median exp(-1.2)."""
    edges = {
        "ddpm": [250, 500, 750],
        "edm": [math.exp(-1.2 - 1.2 * 0.67449), math.exp(-1.2), math.exp(-1.2 + 1.2 * 0.67449)],
        "flow": [0.25, 0.5, 0.75],
    }[formulation]
    return torch.bucketize(t.float(), torch.tensor(edges), right=True)


@pytest.mark.parametrize("formulation", ["ddpm", "edm", "flow"])
def test_means_and_quartiles_are_the_plain_ones(formulation):
    torch.manual_seed(0)
    meter, kept = Meter(), []
    for size in (16, 16, 40):
        t, loss = draws(formulation, size), torch.rand(size)
        meter.add({"loss": loss * 3, "mse": loss}, t, formulation)
        kept.append((t, loss))
    t, loss = (torch.cat(parts) for parts in zip(*kept, strict=True))
    row = meter.take()
    assert set(row) == {"loss", "mse", "mse_q1", "mse_q2", "mse_q3", "mse_q4"}
    assert row["mse"] == pytest.approx(loss.mean().item())
    assert row["loss"] == pytest.approx(3 * loss.mean().item())
    quartile = plain_quartile(t, formulation)
    for q in range(4):
        assert row[f"mse_q{q + 1}"] == pytest.approx(loss[quartile == q].mean().item())


@pytest.mark.parametrize("formulation", ["ddpm", "edm", "flow"])
def test_a_quarter_of_the_draws_is_in_each_quartile(formulation):
    torch.manual_seed(0)
    shares = torch.histc(level(draws(formulation, 20_000), formulation), 4, 0, 1) / 20_000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.015)


def test_the_edges_belong_somewhere():
    meter = Meter()
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    meter.add({"mse": values}, torch.tensor([0, 249, 250, 499, 500, 749, 750, 999]), "ddpm")
    row = meter.take()
    assert [row[f"mse_q{q}"] for q in (1, 2, 3, 4)] == [1.5, 3.5, 5.5, 7.5]
    meter.add({"mse": values[:2]}, torch.tensor([0.0, 1.0]), "flow")
    assert meter.take() == {"mse": 1.5, "mse_q1": 1.0, "mse_q4": 2.0}
    meter.add({"mse": values[:2]}, torch.tensor([1e-30, 1e30]), "edm")
    assert meter.take() == {"mse": 1.5, "mse_q1": 1.0, "mse_q4": 2.0}


def test_a_quartile_without_a_picture_is_left_out():
    meter = Meter()
    meter.add(
        {"loss": torch.ones(2), "mse": torch.ones(2), "vb": torch.ones(2)}, torch.tensor([3, 260]), "ddpm"
    )
    assert set(meter.take()) == {"loss", "mse", "vb", "mse_q1", "mse_q2", "vb_q1", "vb_q2"}


def test_gradient_norms():
    meter = Meter()
    for norm in (1.0, 4.0, 1.0):
        meter.add({"loss": torch.ones(2)}, torch.tensor([1, 2]), "ddpm")  # a micro-batch before the last
        meter.add({"loss": torch.ones(2)}, torch.tensor([1, 2]), "ddpm", torch.tensor(norm))
    assert meter.take() == {"loss": 1.0, "grad_norm": 2.0, "grad_norm_max": 4.0}


def test_the_next_line_starts_anew():
    meter = Meter()
    meter.add({"mse": torch.full((2,), 9.0)}, torch.tensor([1, 2]), "ddpm", torch.tensor(9.0))
    meter.take()
    with pytest.raises(ValueError, match="empty"):
        meter.take()
    meter.add({"mse": torch.ones(2)}, torch.tensor([990, 2]), "ddpm", torch.tensor(2.0))
    assert meter.take() == {"mse": 1.0, "mse_q1": 1.0, "mse_q4": 1.0, "grad_norm": 2.0, "grad_norm_max": 2.0}


def test_micro_batches_and_processes_add_up():
    """Four parts of a batch, in two processes of two micro-batches, give the line of the whole."""
    torch.manual_seed(0)
    t, loss, norm = torch.randint(0, 1000, (64,)), torch.rand(64), torch.tensor(0.7)
    whole, processes = Meter(), [Meter(), Meter()]
    whole.add({"loss": loss, "mse": loss / 2}, t, "ddpm", norm)
    for i, meter in enumerate(processes):
        for j in range(2):
            part = slice(32 * i + 16 * j, 32 * i + 16 * (j + 1))
            meter.add({"loss": loss[part], "mse": loss[part] / 2}, t[part], "ddpm", norm if j else None)
    total = processes[0].state() + processes[1].state()
    expected = whole.take()
    for meter in processes:
        assert meter.take(total) == pytest.approx(expected)


def test_a_skipped_step_does_not_count():
    meter, t = Meter(), torch.tensor([1, 990])
    done, skipped = torch.tensor(True), torch.tensor(False)
    meter.add({"mse": torch.tensor([1.0, 3.0])}, t, "ddpm", torch.tensor(2.0), done)
    nothing = torch.tensor([math.nan, math.inf])
    meter.add({"mse": nothing}, t, "ddpm", torch.tensor(math.nan), skipped)
    expected = {"mse": 2.0, "mse_q1": 1.0, "mse_q4": 3.0, "grad_norm": 2.0, "grad_norm_max": 2.0}
    assert meter.take() == expected
    meter.add({"mse": nothing}, t, "ddpm", torch.tensor(math.nan), done)
    assert math.isnan(meter.take()["mse"])  # counted: what is broken shows
    meter.add({"mse": nothing}, t, "ddpm", torch.tensor(math.nan), skipped)
    row = meter.take()
    assert set(row) == {"mse"} and math.isnan(row["mse"])  # nothing was counted


def test_nothing_is_fetched_while_adding():
    """On the meta device there is nothing to fetch: any look at a number would raise."""
    meter, on_meta = Meter(), {"device": "meta"}
    for formulation in ("ddpm", "edm", "flow"):
        t = torch.empty(8, **on_meta)
        terms = {"mse": torch.empty(8, **on_meta)}
        meter.add(terms, t, formulation, torch.empty((), **on_meta), torch.empty((), **on_meta))
    assert meter.state().shape == (10,)


def test_what_does_not_fit_is_refused():
    meter = Meter()
    meter.add({"mse": torch.ones(2)}, torch.tensor([1, 2]), "ddpm")
    with pytest.raises(ValueError, match="terms are .*loss.* but were .*mse"):
        meter.add({"loss": torch.ones(2)}, torch.tensor([1, 2]), "ddpm")
    with pytest.raises(ValueError, match=r"shape \(3,\), but state\(\) of \(10,\)"):
        meter.take(torch.ones(3))
    with pytest.raises(ValueError, match="formulation is 'vp'"):
        meter.add({"mse": torch.ones(2)}, torch.tensor([1, 2]), "vp")
