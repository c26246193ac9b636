"""The training loop."""

import copy
from pathlib import Path

import torch
from tqdm import tqdm

import dit
from dit.diffusion import NUM_TIMESTEPS, training_losses
from train.checkpoint import Ema, TrainState, checkpoints, truncate_metrics
from train.config import TrainConfig
from train.data import SolidsData
from train.hardware import Hardware
from train.record import Recorder
from train.run_folder import claim, hold


def train(config: TrainConfig, run_dir: Path, hardware: Hardware) -> Path:
    """Run a recipe, or continue it where `run_dir` stopped; returns the path of the averaged weights.

    Raises:
        ValueError: the folder holds a run of another recipe, or a damaged checkpoint.
        FloatingPointError: the loss is no longer finite.
    """
    with hold(run_dir):
        claim(run_dir, config)
        return _optimise(config, run_dir, hardware)


def _optimise(config: TrainConfig, run_dir: Path, hardware: Hardware) -> Path:
    data = SolidsData(config.num_pictures, config.image_size, config.seed, config.batch_size, config.flip)
    state = fresh_state(config, hardware)
    if saved := checkpoints(run_dir):
        state.load(saved[-1])
    truncate_metrics(run_dir, state.step)
    model = torch.compile(state.model) if config.compile else state.model
    record = Recorder(config, run_dir, hardware, state, data)

    with tqdm(total=config.total_steps, initial=state.step, unit="step", desc=run_dir.name) as bar:
        while state.step < config.total_steps:
            hardware.seed(config.seed, state.step)  # t, noise and label dropout repeat on resume
            x0, y = (tensor.to(hardware.device) for tensor in data.batch(state.step))
            t = draw_timesteps(config.timesteps, len(x0)).to(hardware.device)
            with hardware.autocast():
                losses = training_losses(model, x0, t, y)
            losses["loss"].mean().backward()
            if config.grad_clip:
                torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip)
            for group in state.optimizer.param_groups:
                group["lr"] = config.lr_at(state.step)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.ema.update(state.model, state.step)
            state.step += 1
            record.step(losses, bar)
            bar.update()
    return record.final_weights()


LOGIT_MEAN = -0.7  # sigmoid(-0.7) * 1000 = 332: where the linear schedule decides a shape
UNIFORM_SHARE = 0.25  # so that no timestep starves


def draw_timesteps(how: str, n: int) -> torch.Tensor:
    """n training timesteps, (n,) int64 on the CPU, uniform or logit-normal (Esser et al. 2403.03206, 3.1).

    A departure from that paper: the mean is our schedule's, and a share of the draws stays uniform.
    """
    uniform = torch.randint(0, NUM_TIMESTEPS, (n,))
    if how == "uniform":
        return uniform
    middle = (torch.sigmoid(torch.randn(n) + LOGIT_MEAN) * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)
    return torch.where(torch.rand(n) < UNIFORM_SHARE, uniform, middle)


def fresh_state(config: TrainConfig, hardware: Hardware) -> TrainState:
    """Model, average and optimizer at step 0, a function of the seed."""
    torch.manual_seed(config.seed)
    model = dit.build(config.network()).to(hardware.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )
    return TrainState(model.train(), Ema(copy.deepcopy(model), config.ema_decay), optimizer)
