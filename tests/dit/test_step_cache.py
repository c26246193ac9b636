"""Step caching: what is reused is what was computed before, both halves apart, and the count is honest."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import dit
from dit.diffusion import linear_schedule
from dit.guidance import Guided
from dit.pipeline import Pipeline, cost, guided
from dit.samplers import ddim, timesteps
from dit.settings import SampleSettings
from dit.step_cache import Cost, StepCache, costs
from tests.networks import TINY, tiny

FLOW = {"formulation": "flow", "prediction": "velocity", "learn_sigma": False}
DESIGNS = ["adaln-zero", "adaln", "cross-attention", "in-context", "diffit"]


@pytest.fixture(params=DESIGNS)
def model(request, random_model):
    """A random model of each design whose blocks have branches; its outputs depend on all of them."""
    design = request.param
    return random_model(**({"backbone": "diffit"} if design == "diffit" else {"conditioning": design}))


def settings(**fields):
    usual = {"classes": [1, 2], "seeds": [5, 6], "steps": 6, "guidance_scale": 2.0}
    return SampleSettings(**usual | fields)


def branches(model):
    """The modules whose outputs are kept."""
    names = ("attn", "cross_attn", "mlp")
    return [getattr(block, name) for block in model.blocks for name in names if hasattr(block, name)]


def walked(model, y, scale, cache, interval=None):
    """The end of six DDIM steps from a fixed noise."""
    denoiser = Guided(model, y, scale, cache=cache, interval=interval)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for step in ddim(denoiser, x, linear_schedule().alpha_bar, timesteps(6)):
            last = step.x_t
    return last


def test_without_reuse_nothing_changes(model):
    y = torch.tensor([1, 2])
    assert torch.equal(walked(model, y, 2.0, StepCache(1)), walked(model, y, 2.0, None))


def test_branches_are_called_at_whole_steps_only_and_serve_their_last_outputs(model, monkeypatch):
    """Against the same walk in which the modules themselves give again what they gave."""
    y, every, calls = torch.tensor([1, 2]), 3, []
    reused = walked(model, y, 1.0, StepCache(every))
    for module in branches(model):
        outputs = []

        def forward(*given, plain=module.forward, outputs=outputs):
            outputs.append(plain(*given) if len(outputs) % every == 0 else outputs[-1])
            return outputs[-1]

        monkeypatch.setattr(module, "forward", forward)
        calls.append(outputs)
    naive = walked(model, y, 1.0, None)
    torch.testing.assert_close(reused, naive, atol=1e-6, rtol=1e-6)
    assert {len(outputs) for outputs in calls} == {6}
    monkeypatch.undo()
    counted = [0]
    for module in branches(model):
        module.register_forward_hook(lambda *_: counted.__setitem__(0, counted[0] + 1))
    walked(model, y, 1.0, StepCache(every))
    assert counted[0] == 2 * len(branches(model))
    assert not torch.allclose(reused, walked(model, y, 1.0, None), atol=1e-3)


def test_both_halves_of_a_guided_batch_are_kept_apart(random_model):
    """Guided with a cache equals two walks side by side, each with a cache of its own."""
    model, y, every = random_model(), torch.tensor([1, 2]), 2
    caches = [StepCache(every), StepCache(every)]
    halves = [Guided(model, y, cache=caches[0]), Guided(model, torch.full_like(y, 10), cache=caches[1])]

    def separate(x, t):
        with_class, without = (half(x, t) for half in halves)
        return torch.cat([without[:, :3] + 2.0 * (with_class - without)[:, :3], with_class[:, 3:]], dim=1)

    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        *_, last = ddim(separate, x, linear_schedule().alpha_bar, timesteps(6))
    torch.testing.assert_close(walked(model, y, 2.0, StepCache(every)), last.x_t, atol=1e-3, rtol=1e-3)


def test_where_guidance_begins_there_is_nothing_to_reuse_and_where_it_ends_there_is():
    whole, reused = Cost(whole=1), Cost(reused=1)
    assert costs([1, 1, 1, 1, 1], 2) == [whole, reused, whole, reused, whole]
    assert costs([1, 2, 2, 2, 1], 4) == [whole, Cost(whole=2), Cost(reused=2), Cost(reused=2), whole]
    assert costs([2, 1, 2, 1], 3) == [Cost(whole=2), reused, Cost(reused=2), whole]
    assert costs([2, 2], 1) == [Cost(whole=2), Cost(whole=2)]
    assert sum(costs([2, 1, 2, 1], 3), Cost()).passes == 6


def test_an_interval_is_walked_as_it_is_counted(random_model):
    """Steps outside it take the conditional half, and the first inside computes anew."""
    model, rows = random_model(), []
    model.blocks[0].attn.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    wish = settings(guidance_interval=(150, 700), cache_every=3, steps=8)
    planned = costs([guided(model, wish).passes(int(t)) for t in reversed(timesteps(8))], 3)
    Pipeline(model).generate(wish)
    assert rows == [2 * step.whole for step in planned if step.whole]
    assert len({step.whole for step in planned}) == 3  # 0, 1 and 2 occur


@pytest.mark.parametrize("interval", [None, (150, 700), (600, 999)], ids=str)
def test_multiply_accumulates_of_guided_steps_are_those_that_are_spent(model, interval):
    """torch's counter, which reads the operations themselves, against the count; 1 MAC = 2 FLOPs."""
    wish = settings(cache_every=3, guidance_interval=interval)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        frames = list(Pipeline(model).stream(wish))
    assert frames[-1].macs * 2 == counter.get_total_flops()


def test_multiply_accumulates_are_those_that_are_spent(model):
    """The same, and by hand: of six steps two are whole."""
    wish = settings(cache_every=3, guidance_scale=1.0, guidance_interval=None)
    pipeline = Pipeline(model)
    # The plain attention kernel: torch does not count the fused one of the CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        frames = list(pipeline.stream(wish))
    assert frames[-1].macs * 2 == counter.get_total_flops()
    told = cost(model, wish)
    assert (told.whole, told.reused) == (2, 4)
    assert frames[-1].macs == 2 * (2 * dit.macs(model.config) + 4 * dit.macs(model.config, reused=True))


@pytest.mark.parametrize(
    ("config", "fields", "said"),
    [
        (TINY["unet"], {}, "backbone is unet"),
        (FLOW, {"sampler": "heun"}, "heun looks twice"),
        ({}, {"cache_every": 11}, "cache_every is 11; it must be from 1"),
        ({}, {"cache_every": 0}, "cache_every is 0"),
        ({}, {"cache_every": 2.0}, "cache_every must be a whole number"),
    ],
)
def test_what_cannot_be_cached_is_said(config, fields, said, random_model):
    model = random_model(**config)
    with pytest.raises((TypeError, ValueError), match=said):
        cost(model, settings(**{"cache_every": 2} | fields))


def test_a_flow_is_cached_too(random_model):
    model = random_model(**FLOW)
    plain, reused = (Pipeline(model).generate(settings(cache_every=n)) for n in (1, 2))
    assert reused.macs < 0.7 * plain.macs and (reused.x0 != plain.x0).any()


def test_reused_passes_of_a_u_shape_are_not_counted():
    config = tiny("unet")
    with pytest.raises(ValueError, match="cannot be cached; dit and diffit can"):
        dit.macs(config, reused=True)
