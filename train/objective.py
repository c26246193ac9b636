"""What a training step minimises, and what is drawn for it, by the formulation that a config records."""

import torch
from torch import Tensor, nn

from dit import diffusion, edm, flow
from dit.config import ModelConfig
from dit.diffusion import NUM_TIMESTEPS
from train.batch import Batch
from train.config import TrainConfig

LOGIT_MEAN = -0.7  # sigmoid(-0.7) * 1000 = 332: where the linear schedule decides a shape
UNIFORM_SHARE = 0.25  # so that no timestep starves
MIN_SNR_GAMMA = 5.0  # Hang et al. 2023 (2303.09556): the value of all their runs


def losses(config: TrainConfig, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Loss of each picture: "loss", "mse", and "vb" where the variance is learned; all (N,).

    A function of weights and batch: all that is random is in the batch, but for the model's dropout.
    """
    x0, t, y = batch.x0, batch.t, batch.y
    gamma = MIN_SNR_GAMMA if config.loss_weighting == "min-snr" else None
    formulation = model.config.formulation
    if formulation == "edm":
        return edm.training_losses(model, x0, t, y, batch.noise, augment=batch.augment)
    if formulation == "flow":
        return flow.training_losses(model, x0, t, y, batch.noise, gamma)
    return diffusion.training_losses(model, x0, t, y, batch.noise, gamma)


def draw_levels(config: TrainConfig, network: ModelConfig, n: int, generator: torch.Generator) -> Tensor:
    """n noise levels to train at, (n,) on the CPU.

    int64 timesteps of a DDPM model, float32 sigmas of an EDM model, float32 times 0..1 of a flow model.
    """
    if network.formulation == "edm":
        return edm.draw_sigmas(n, generator)
    if network.formulation == "flow":
        return flow.draw_times(config.timesteps, n, generator)
    return draw_timesteps(config.timesteps, n, generator)


def draw_timesteps(how: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n training timesteps, (n,) int64 on the CPU, uniform or logit-normal (Esser et al. 2403.03206, 3.1).

    A departure from that paper: the mean is our schedule's, and a share of the draws stays uniform.
    """
    uniform = torch.randint(0, NUM_TIMESTEPS, (n,), generator=generator)
    if how == "uniform":
        return uniform
    middle = torch.sigmoid(torch.randn(n, generator=generator) + LOGIT_MEAN) * NUM_TIMESTEPS
    stays = torch.rand(n, generator=generator) < UNIFORM_SHARE
    return torch.where(stays, uniform, middle.long().clamp(max=NUM_TIMESTEPS - 1))


def draw_labels(config: TrainConfig, network: ModelConfig, y: Tensor, dice: Tensor) -> Tensor | None:
    """Labels y (n,), a share of them replaced by the null class; None if the model takes none.

    dice: (n,) uniform in 0..1. For a model in training mode that has passed `dit.layers.drops_no_labels`:
    else it would drop them again.
    """
    if not network.num_classes:
        return None
    return torch.where(dice < config.class_dropout_prob, network.num_classes, y)
