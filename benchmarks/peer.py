"""The peer: the same weights in diffusers' DiTTransformer2DModel, sampled by a plain DDIM loop."""

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from torch import Tensor

from benchmarks.full_size import diffusers_state
from dit.diffusion import NUM_TIMESTEPS
from dit.dit import DiT
from dit.layers import LAYER_NORM_EPS


def to_diffusers(model: DiT) -> DiTTransformer2DModel:
    """The same network as diffusers builds it. There, every block has its own copy of both embedders."""
    config = model.config
    peer = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.hidden_size // config.num_heads,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=config.input_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=LAYER_NORM_EPS,
    )
    state = diffusers_state(model)
    missing, unexpected = peer.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"pos_embed.pos_embed"}:
        raise KeyError(f"diffusers' layout has changed: missing {missing}, unexpected {unexpected}")
    for block in peer.transformer_blocks:
        # diffusers divides the exponent of the timestep frequencies by 127, the DiT authors by 128.
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return peer.eval()


def ddim_schedule(steps: int, prediction: str) -> DDIMScheduler:
    """diffusers' DDIM over DiT's noise schedule. It assumes equal gaps: steps must divide 1000.

    Raises:
        ValueError: steps does not.
    """
    if NUM_TIMESTEPS % steps:
        raise ValueError(f"steps is {steps}; for diffusers' scheduler it must divide {NUM_TIMESTEPS}")
    schedule = DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=1e-4,
        beta_end=2e-2,
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="v_prediction" if prediction == "v" else "epsilon",
    )
    schedule.set_timesteps(steps)
    return schedule


@torch.inference_mode()
def ddim_loop(
    peer: DiTTransformer2DModel, x: Tensor, y: Tensor, schedule: DDIMScheduler, guidance_scale: float
) -> Tensor:
    """What a reader of diffusers' manual would write. x: (N, C, H, W), y: (N,) labels -> (N, C, H, W)."""
    labels = torch.cat([y, torch.full_like(y, peer.config.num_embeds_ada_norm)])
    for t in schedule.timesteps:
        output = peer(torch.cat([x, x]), timestep=t.expand(2 * len(x)), class_labels=labels).sample
        conditional, unconditional = output[:, : x.shape[1]].chunk(2)
        guided = unconditional + guidance_scale * (conditional - unconditional)
        x = schedule.step(guided, t, x).prev_sample
    return x
