"""What a training step minimises, chosen by the formulation that the model's config records."""

import torch
from torch import Tensor, nn

from dit import edm
from dit.diffusion import NUM_TIMESTEPS, training_losses
from train.augment import augment
from train.config import TrainConfig

LOGIT_MEAN = -0.7  # sigmoid(-0.7) * 1000 = 332: where the linear schedule decides a shape
UNIFORM_SHARE = 0.25  # so that no timestep starves


def losses(config: TrainConfig, model: nn.Module, x0: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Loss of each picture: "loss" among others, all (N,).

    x0: (N, C, H, W) and y: (N,) on the model's device. Noise levels and augmentation are drawn on the CPU:
    the same on every device.
    """
    if model.config.formulation == "edm":
        labels = None
        if config.augment:
            x0, labels = augment(x0, config.augment)
        return edm.training_losses(model, x0, edm.draw_sigmas(len(x0)).to(x0.device), y, augment=labels)
    return training_losses(model, x0, draw_timesteps(config.timesteps, len(x0)).to(x0.device), y)


def draw_timesteps(how: str, n: int) -> Tensor:
    """n training timesteps, (n,) int64 on the CPU, uniform or logit-normal (Esser et al. 2403.03206, 3.1).

    A departure from that paper: the mean is our schedule's, and a share of the draws stays uniform.
    """
    uniform = torch.randint(0, NUM_TIMESTEPS, (n,))
    if how == "uniform":
        return uniform
    middle = (torch.sigmoid(torch.randn(n) + LOGIT_MEAN) * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)
    return torch.where(torch.rand(n) < UNIFORM_SHARE, uniform, middle)
