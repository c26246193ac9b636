"""The training loop."""

import copy
import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

import dit
from dit.diffusion import NUM_TIMESTEPS, training_losses
from dit.pipeline import Pipeline, SampleSettings
from dit.weights import atomic_write, save
from train.checkpoint import Ema, TrainState, checkpoints, truncate_metrics
from train.config import RESUMABLE, TrainConfig
from train.data import SolidsData
from train.hardware import Hardware


def train(config: TrainConfig, run_dir: Path, hardware: Hardware) -> Path:
    """Run a recipe, or continue it where `run_dir` stopped; returns the path of the averaged weights.

    Raises:
        ValueError: the folder holds a run of another recipe, or a damaged checkpoint.
        FloatingPointError: the loss is no longer finite.
    """
    lock = claim(run_dir, config)
    data = SolidsData(config.num_pictures, config.image_size, config.seed, config.batch_size, config.flip)
    state = fresh_state(config, len(data.classes), hardware)
    if saved := checkpoints(run_dir):
        state.load(saved[-1])
    truncate_metrics(run_dir, state.step)
    model = torch.compile(state.model) if config.compile else state.model
    record = Recorder(config, run_dir, hardware, state, data)

    with tqdm(total=config.total_steps, initial=state.step, unit="step", desc=run_dir.name) as bar:
        while state.step < config.total_steps:
            hardware.seed(config.seed, state.step)  # t, noise and label dropout repeat on resume
            x0, y = (tensor.to(hardware.device) for tensor in data.batch(state.step))
            t = torch.randint(0, NUM_TIMESTEPS, (len(x0),), device=hardware.device)
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
    lock.release()
    return run_dir / "weights.safetensors"


def fresh_state(config: TrainConfig, num_classes: int, hardware: Hardware) -> TrainState:
    """Model, average and optimizer at step 0, a function of the seed."""
    torch.manual_seed(config.seed)
    model = dit.build(
        config.model,
        input_size=config.image_size,
        in_channels=3,
        num_classes=num_classes,
        class_dropout_prob=config.class_dropout_prob,
        prediction=config.prediction,
    ).to(hardware.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )
    return TrainState(model.train(), Ema(copy.deepcopy(model), config.ema_decay), optimizer)


def claim(run_dir: Path, config: TrainConfig) -> FileLock:
    """Lock the folder, and write config.json or make sure that the one there is of the same run.

    The lock goes with the process, however that ends.

    Raises:
        ValueError: another process trains there, or it holds another run; the message names what differs.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{run_dir} is in use by another process; wait for it, stop it, or give another --run-dir"
        ) from None
    path = run_dir / "config.json"
    if path.exists():
        before = json.loads(path.read_text())
        changed = {k: v for k, v in asdict(config).items() if k not in RESUMABLE and before.get(k) != v}
        if changed:
            difference = ", ".join(
                f"{name} was {before.get(name)!r}, now {value!r}" for name, value in changed.items()
            )
            raise ValueError(
                f"{run_dir} holds another run: {difference}; continue it with its own settings, "
                "or give a new folder with --run-dir"
            )
    atomic_write(path, lambda temporary: temporary.write_text(json.dumps(asdict(config), indent=1) + "\n"))
    return lock


class Recorder:
    """Writes what a run leaves behind: metrics, grids, checkpoints, weights."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, hardware: Hardware, state: TrainState, data: SolidsData
    ) -> None:
        self.config, self.run_dir, self.hardware = config, run_dir, hardware
        self.state, self.data = state, data
        self.pending: list[dict[str, torch.Tensor]] = []
        self.since = time.perf_counter()

    def step(self, losses: dict[str, torch.Tensor], bar: tqdm) -> None:
        """Note one optimizer step, and do what is due after it."""
        config, step = self.config, self.state.step
        # Means stay tensors until they are needed: fetching each one would stall an accelerator.
        self.pending.append({name: loss.detach().mean() for name, loss in losses.items()})
        last = step == config.total_steps
        log, checkpoint, sample = (
            last or step % every == 0
            for every in (config.log_every, config.checkpoint_every, config.sample_every)
        )
        if log or checkpoint:
            self.flush(bar, write=log)
        if checkpoint:
            self.state.save(self.run_dir, config.keep_checkpoints)
            self.save_weights()
        if sample:
            self.sample()

    def flush(self, bar: tqdm, write: bool) -> None:
        """Fetch the losses since the last time, and stop the run if one is not finite."""
        rows = [{name: float(value) for name, value in row.items()} for row in self.pending]
        first = self.state.step - len(rows) + 1
        for step, row in enumerate(rows, start=first):
            if not all(torch.isfinite(torch.tensor(list(row.values())))):
                good = checkpoints(self.run_dir)
                raise FloatingPointError(
                    f"loss is {row['loss']} at step {step} (its batch: seed {self.config.seed}, pictures "
                    f"{self.data.indices(step - 1)[:8].tolist()} ...); last good checkpoint: "
                    f"{good[-1] if good else 'none yet'}; lower --lr or set --grad-clip 1, in a new --run-dir"
                )
        if not write or not rows:
            return
        seconds = time.perf_counter() - self.since
        metrics: dict[str, Any] = {"step": self.state.step}
        metrics |= {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        metrics["lr"] = self.config.lr_at(self.state.step - 1)
        metrics["images_per_second"] = len(rows) * self.config.batch_size / seconds
        with (self.run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        bar.set_postfix(loss=f"{metrics['loss']:.4f}", **{"images/s": f"{metrics['images_per_second']:.0f}"})
        self.pending, self.since = [], time.perf_counter()

    def save_weights(self) -> Path:
        """weights.safetensors of the average, with where it comes from."""
        path = self.run_dir / "weights.safetensors"
        save(path, self.state.ema.model, self.provenance())
        return path

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from."""
        return {
            "dataset": self.config.data,
            "classes": list(self.data.classes),
            "images_seen": self.state.step * self.config.batch_size,
            "recipe": asdict(self.config),
            "commit": commit(),
            "hardware": self.hardware.describe(),
        }

    def sample(self) -> None:
        """A grid of the average's pictures: one row a class, the same seeds every time."""
        pipeline = Pipeline(self.state.ema.model, self.hardware.device)
        columns, classes = 8, len(self.data.classes)
        settings = SampleSettings(
            classes=[y for y in range(classes) for _ in range(columns)],
            seeds=list(range(columns)) * classes,
            steps=25,
            guidance_scale=2.0 if self.config.class_dropout_prob else 1.0,
        )
        pictures = pipeline.generate(settings).x0
        grid = pictures.reshape(classes, columns, *pictures.shape[1:]).swapaxes(1, 2)
        side = self.config.image_size
        image = Image.fromarray(grid.reshape(classes * side, columns * side, 3))
        path = self.run_dir / "samples" / f"step_{self.state.step:08d}.png"
        atomic_write(path, lambda temporary: image.save(temporary, format="png"))


def commit() -> str:
    """The commit of the code, with "+" if the tree is changed; "unknown" outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
