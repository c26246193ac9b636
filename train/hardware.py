"""The one place of the trainer that knows what the machine has: devices, processes, precision.

`Hardware` is one process on one device, alone or one of many under torchrun. `train.xla.XlaHardware` answers
to the same methods for TPUs. The loop knows neither: what differs between them is behind these methods.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dit.config import U_SHAPED
from dit.pipeline import find_device
from dit.presets import MODELS
from train.batch import Batch
from train.config import TrainConfig
from train.ema import Ema
from train.plan import device_memory
from train.remat import parts, rematerialise
from train.together import Copy, read_together, write_together

PATIENCE = timedelta(hours=12)  # while others download or decode a set for the first time
LOST = timedelta(minutes=30)  # after which a process that does not come to a step is given up
COMPILED_STEPS = 1000  # on a CPU compiling takes as long as some hundred steps


class Hardware:
    """A device, the precision that its matrix products run in, and the other processes of the run."""

    def __init__(self, device: torch.device, bf16: bool, rank: int = 0, world: int = 1) -> None:
        """rank: of this process, of `world` in all, each with a device of its own."""
        self.device, self.bf16, self.rank, self.world = device, bf16, rank, world
        self.devices = world  # that share a batch
        self.sampler_device = device  # that a sampler computes on, around the calls of the model
        # Checkpoints are written in a thread, whose messages must not meet those of the loop.
        self._waiting, self._group = (
            dist.new_group(backend="gloo", timeout=PATIENCE) if world > 1 else None for _ in range(2)
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files and talks to its user."""
        return self.rank == 0

    def describe(self) -> str:
        """One line for the log and for the weights' provenance."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        name = f" ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else ""
        others = f" x {self.world}" if self.world > 1 else ""
        device = self.device.type if self.world > 1 else self.device
        return f"{device}{name}{others}{threads}, {'bf16 autocast' if self.bf16 else 'float32'}"

    def memory(self) -> int | None:
        """Bytes of the device that training may take; None where nobody tells."""
        total = device_memory(self.device) or 0
        if self.device.type == "cpu":  # which the processes of a machine share
            total //= int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        return -self.largest(-total) or None  # the smallest, so that all divide a step alike

    # --- the model and its optimizer ---

    def place(self, model: nn.Module, config: TrainConfig) -> nn.Module:
        """Move a model here, and make it share its work as the config says; returns what the loop calls.

        The parameters of `model` itself are those trained: under fsdp, each process holds a part of each.
        """
        model.to(self.device)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        blocks = parts(model)
        if self.compiles(config) and self._several(config):
            # Block by block, gradients can travel to the other processes while earlier blocks' are computed.
            for block in blocks:
                block.forward = torch.compile(block.forward)
        if config.remat:  # around what is compiled: a compiler does not look into it from outside
            rematerialise(model)
        if config.parallel == "fsdp":
            return self._shard(model, blocks)
        if self.world == 1:
            return model
        # The buckets are views of the gradients, so that they are not in memory twice.
        called = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        called.config = model.config
        return called

    def _shard(self, model: nn.Module, blocks: list[nn.Module]) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        if not dist.is_initialized():  # alone, all of it is on this device
            dist.init_process_group(_backend(self.device), store=dist.HashStore(), rank=0, world_size=1)
        mesh, policy = init_device_mesh(self.device.type, (self.world,)), MixedPrecisionPolicy()
        if self.bf16:  # weights travel, and are gathered, as autocast would round them; what else, it decides
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        return fully_shard(model, mesh=mesh)

    def compile_losses(self, losses: Callable, config: TrainConfig) -> Callable:
        """The losses of a batch in one graph with their model's passes, where no other process takes part."""
        return torch.compile(losses) if self.compiles(config) and not self._several(config) else losses

    def _several(self, config: TrainConfig) -> bool:
        return self.world > 1 or config.parallel == "fsdp"

    def compiles(self, config: TrainConfig) -> bool:
        """Whether a step is compiled: unasked on a GPU, and on a CPU where it pays and can be done.

        There U-nets, most of whose time is convolutions, take minutes to compile and are no faster then.
        """
        if config.compile != "auto":
            return config.compile == "yes"
        pays = config.total_steps >= COMPILED_STEPS and MODELS[config.model].backbone not in U_SHAPED
        can = shutil.which(os.environ.get("CXX", "g++")) is not None
        return self.device.type == "cuda" or (self.device.type == "cpu" and pays and can)

    def optimizer(self, parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
        """AdamW in one kernel, with its moments already there: so a checkpoint has a place to be read to."""
        optimizer = torch.optim.AdamW(
            parameters, lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
        )
        for parameter in optimizer.param_groups[0]["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=self.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return optimizer

    # --- a step ---

    def rows(self, batch_size: int) -> range:
        """Which rows of the whole batch this process computes."""
        share = batch_size // self.world
        return range(self.rank * share, (self.rank + 1) * share)

    def put(self, batch: Batch) -> Batch:
        """A batch on the device."""
        moved = {
            field.name: (value.pin_memory() if self.device.type == "cuda" else value).to(
                self.device, non_blocking=True
            )
            for field in fields(batch)
            if (value := getattr(batch, field.name)) is not None
        }
        return replace(batch, **moved)

    def seed(self, seed: int, step: int) -> None:
        """Make what a network itself draws in a step (dropout) a function of (seed, step, rank)."""
        torch.manual_seed((seed * 0x9E3779B97F4A7C15 + step * self.world + self.rank) % 2**63)

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 matrix products over float32 weights, or nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def accumulating(self, called: nn.Module, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a part of a step: processes meet in the last one only.

        called: what `place` returned. Under fsdp they meet in each: whole gradients would have to be kept
        from one to the next, of models that are shared out because they do not fit.
        """
        if isinstance(called, nn.parallel.DistributedDataParallel) and not last:
            with called.no_sync():
                yield
        else:
            yield

    def clip(self, parameters: list[nn.Parameter], largest: float) -> Tensor:
        """The norm of all gradients, () float32; they are scaled down to `largest`, unless that is 0."""
        norm = nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
        if largest:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm)
        return self.whole(norm)

    def number(self, value: float) -> float | Tensor:
        """A number that changes from step to step, as the device likes it."""
        return value

    def update(self, optimizer: torch.optim.Optimizer, lr: float, finite: Tensor) -> bool | Tensor:
        """One optimizer step, if `finite`; returns whether. Gradients are gone after it."""
        done = bool(finite)
        if done:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return done

    def end_step(self) -> None:
        """Called once at the end of each step."""

    @contextlib.contextmanager
    def averaged(self, ema: Ema) -> Iterator[nn.Module | None]:
        """The model with its averaged weights, to draw from; None in a process that need not help."""
        sharded = [module for module in ema.model.modules() if isinstance(module, FSDPModule)]
        if not (self.is_main or sharded):
            yield None
            return
        with ema.in_place() as model, torch.compiler.set_stance("force_eager"):  # else it would compile anew
            for module in sharded:  # once before, as what inference mode allocates cannot be trained
                module.unshard()
                module.reshard()
            try:
                yield model
            finally:
                for module in sharded:  # without a backward pass, the outermost stays whole
                    module.reshard()

    def peak_memory(self) -> int:
        """The most bytes that tensors took on the device since the last time; 0 where nobody counts."""
        if self.device.type != "cuda":
            return 0
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak

    # --- between processes, and towards the host ---

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers; all must ask."""
        if self.world == 1:
            return number
        answer = torch.tensor(number)  # on the CPU: the device's queue goes on
        dist.all_reduce(answer, op=dist.ReduceOp.MAX, group=self._waiting)
        return int(answer)

    def wait_for_all(self) -> None:
        """Return when all processes have come here."""
        self.largest(0)

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which each process may hold a part; all must ask."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def to_host(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor on the CPU; all must ask."""
        return self.whole(tensor.detach()).cpu()

    # --- checkpoints ---

    def copy(self, tensors: dict[str, Tensor]) -> Copy:
        """What this process shall write, on the CPU, where training does not touch it."""
        return Copy.staged(tensors, self.rank, self.world)

    def write(self, copy: Copy, folder: Path) -> None:
        """Write what `copy` gave, together with the other processes. May run in a thread. Raises OSError."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # a thread begins with the first one
        write_together(copy, folder, self._group, alone=self.world == 1)

    def read(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """Fill tensors from what `write` has written, in however many processes it was. Raises OSError."""
        read_together(tensors, folder, alone=self.world == 1)

    def close(self) -> None:
        """Leave the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()


def select(device: str = "auto", precision: str = "auto") -> Any:
    """The hardware to train on: a `Hardware`, or train.xla's with the same methods.

    device: auto (TPUs where PJRT_DEVICE asks for them, else a CUDA GPU if there is one, then Apple's, else
    the CPU; the choice is printed at the start), tpu, or a torch device by name, which must be there. Under
    torchrun each process takes the device of its LOCAL_RANK, and all train one model.

    Raises:
        ValueError: no such device on this machine, or one that torchrun cannot share out.
    """
    if device in ("tpu", "xla") or (device == "auto" and os.environ.get("PJRT_DEVICE")):
        from train.xla import select_xla

        return select_xla(precision)
    rank, world, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    count = torch.cuda.device_count()
    if world > 1 and count and device in ("auto", "cuda"):
        torch.cuda.set_device(min(local, count - 1))  # before anything is allocated on the first one
    chosen = find_device(device)
    if world > 1:
        if chosen.type == "cuda":
            if chosen.index is not None or local >= count:
                raise ValueError(
                    f"device is {device!r} and LOCAL_RANK {local}, on a machine of {count} GPUs; under "
                    "torchrun give --device cuda, and start at most one process a GPU"
                )
            chosen = torch.device("cuda", local)
        elif chosen != torch.device("cpu"):
            raise ValueError(
                f"device is {device!r}; torchrun shares out cuda or cpu; start one process for it"
            )
        dist.init_process_group(_backend(chosen), rank=rank, world_size=world, timeout=LOST)
    if chosen.type == "cuda":  # a thread that writes a checkpoint, and a mesh of devices, ask which one it is
        chosen = torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
        torch.cuda.set_device(chosen)
    has_bf16 = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return Hardware(chosen, bf16, rank, max(1, world))


def _backend(device: torch.device) -> str:
    """Flags and checkpoints go over the CPU, gradients over the device."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
