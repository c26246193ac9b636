"""The training loop."""

import copy
from pathlib import Path

import torch
from tqdm import tqdm

import dit
from train.checkpoint import Ema, TrainState, checkpoints, truncate_metrics
from train.config import TrainConfig
from train.data import SolidsData
from train.hardware import Hardware
from train.objective import losses
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
            with hardware.autocast():
                terms = losses(config, model, x0, y)
            terms["loss"].mean().backward()
            if config.grad_clip:
                torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip)
            for group in state.optimizer.param_groups:
                group["lr"] = config.lr_at(state.step)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.ema.update(state.model, state.step)
            state.step += 1
            record.step(terms, bar)
            bar.update()
    return record.final_weights()


def fresh_state(config: TrainConfig, hardware: Hardware) -> TrainState:
    """Model, average and optimizer at step 0, a function of the seed."""
    torch.manual_seed(config.seed)
    model = dit.build(config.network()).to(hardware.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )
    return TrainState(model.train(), Ema(copy.deepcopy(model), config.ema_decay), optimizer)
