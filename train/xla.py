"""TPUs, through torch_xla: the same verbs as `train.hardware.Hardware`. Nothing else imports torch_xla.

One process a host. Tensors are those of the whole pod (SPMD): a batch is split over the mesh of all devices,
the weights are on each, or split as well, and the compiler adds the sums over devices. A step is traced, and
runs when `end_step` says so; it is compiled anew whenever anything about it changes but the values of its
tensors. So numbers that change travel as tensors, and nothing looks at a tensor's value within a step.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.batch import Batch
from train.config import TrainConfig
from train.ema import Ema
from train.hardware import Hardware
from train.remat import parts
from train.together import Copy, files_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else each compilation warns of a partitioner to come

INSTALL = "pip install -r requirements-tpu.txt, in an environment of its own"
ASKED = os.environ.get("PJRT_DEVICE")  # torch_xla sets it to what it finds
DOWNCASTS = ("XLA_USE_BF16", "XLA_DOWNCAST_BF16")

try:
    import torch_xla
    import torch_xla.backends
    import torch_xla.core.xla_model as xm
    import torch_xla.distributed.spmd as xs
    import torch_xla.runtime as xr
except ImportError as error:
    raise ValueError(
        f"training on a TPU needs torch_xla, which cannot be used here ({error}); {INSTALL}"
    ) from error


class XlaHardware(Hardware):
    """All devices of a TPU VM, or of a pod slice together with the other hosts."""

    def __init__(self, bf16: bool) -> None:
        if xr.process_count() > 1:
            from torch_xla.distributed import xla_backend  # noqa: F401  knows where the hosts meet

            dist.init_process_group("gloo", init_method="xla://")  # flags; weights go from device to device
        super().__init__(torch_xla.device(), bf16, xr.process_index(), xr.process_count())
        self.sampler_device = torch.device("cpu")
        self.devices = xr.global_runtime_device_count()
        self.mesh = xs.Mesh(np.arange(self.devices), (self.devices,), ("data",))
        self._splits_weights = False

    def describe(self) -> str:
        """One line for the log and for the weights' provenance."""
        hosts = f" on {self.world} hosts" if self.world > 1 else ""
        kind = xr.device_type().lower()
        return f"xla {kind} x {self.devices}{hosts}, {'bf16 autocast' if self.bf16 else 'float32'}"

    def memory(self) -> int | None:
        """None: torch_xla tells nothing of memory where tensors are those of several devices."""
        return None

    # --- the model and its optimizer ---

    def place(self, model: nn.Module, config: TrainConfig) -> nn.Module:
        """Move a model to all devices, whole or, under fsdp, a part of each weight to each device."""
        if config.compile == "yes":
            raise ValueError(
                "compile is 'yes', but on a TPU everything is compiled, by XLA; leave it at auto"
            )
        model.to(self.device)
        blocks = parts(model)
        if config.remat:
            for block in blocks:
                _keep_no_activations(block)
        self._splits_weights = config.parallel == "fsdp"
        if self._splits_weights:
            self._shard(model, blocks)
        torch_xla.sync()
        return model

    def _shard(self, model: nn.Module, blocks: list[nn.Module]) -> nn.Module:
        """What SpmdFullyShardedDataParallel does, without its wrappers, which rename the weights."""
        for parameter in model.parameters():
            xs.mark_sharding(parameter, self.mesh, self._spread(parameter).partition_spec)
        for block in blocks:
            xs.apply_backward_optimization_barrier(block)
        for module in (*blocks, model):
            module.register_forward_hook(self._by_rows)
        return model

    def _by_rows(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Tell the compiler that activations are split by pictures, so it is the weights that travel."""
        xs.mark_sharding(output, self.mesh, self._rows_of(output).partition_spec)

    def _rows_of(self, tensor: Tensor, minibatch: bool = False) -> xs.ShardingSpec:
        spec = ("data", *[None] * (tensor.ndim - 1))
        return xs.ShardingSpec(self.mesh, spec, minibatch=minibatch)

    def _spread(self, tensor: Tensor) -> xs.ShardingSpec:
        """How a weight, its average and its moments lie on the devices: whole, or cut along the longest side.

        Of the sides that can be cut evenly: others would be whole again after a step.
        """
        spec: list[str | None] = [None] * tensor.ndim
        even = [i for i, side in enumerate(tensor.shape) if side % self.devices == 0]
        if self._splits_weights and even:
            spec[max(even, key=lambda i: tensor.shape[i])] = "data"
        return xs.ShardingSpec(self.mesh, tuple(spec))

    def _send(self, tensor: Tensor, sharding: xs.ShardingSpec) -> Tensor:
        return xm.send_cpu_data_to_device(tensor, self.device, sharding)[0]

    def _send_rows(self, tensor: Tensor, minibatch: bool = False) -> Tensor:
        return self._send(tensor, self._rows_of(tensor, minibatch))

    def compiles(self, config: TrainConfig) -> bool:
        """Whether torch.compile is used: XLA compiles by itself."""
        return False

    def optimizer(self, parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
        """AdamW whose rate and count of steps are tensors, its moments lying as the weights do."""
        optimizer = torch.optim.AdamW(
            parameters,
            lr=self.number(config.lr),
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            foreach=False,
            capturable=True,
        )
        for parameter in optimizer.param_groups[0]["params"]:
            sharding = self._spread(parameter)
            optimizer.state[parameter] = {
                "step": self.number(0.0),
                "exp_avg": self._send(torch.zeros(parameter.shape), sharding),
                "exp_avg_sq": self._send(torch.zeros(parameter.shape), sharding),
            }
        torch_xla.sync()
        return optimizer

    # --- a step ---

    def put(self, batch: Batch) -> Batch:
        """This host's rows as its part of the whole batch, which is split over all devices."""
        moved = {
            field.name: self._send_rows(value, minibatch=self.world > 1)
            for field in fields(batch)
            if (value := getattr(batch, field.name)) is not None
        }
        return replace(batch, **moved)

    def seed(self, seed: int, step: int) -> None:
        """Make what a network itself draws in a step a function of (seed, step); hosts draw it together."""
        torch_xla.sync()  # what was left to do must not become a part of the step
        torch_xla.manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 matrix products over float32 weights, or nothing."""
        return torch.autocast("xla", dtype=torch.bfloat16, enabled=self.bf16)

    def number(self, value: float) -> Tensor:
        """A number that changes from step to step: a tensor, since a constant would be compiled in."""
        numbers = torch.tensor([value], dtype=torch.float32)  # 0 or 1 alone would be a constant all the same
        return numbers.to(self.device)[0]

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer, lr: float | Tensor, finite: Tensor) -> Tensor:
        """One optimizer step, if `finite`, which is not waited for; returns it. Gradients are gone then."""
        group = optimizer.param_groups[0]
        kept = [
            tensor
            for parameter in group["params"]
            for tensor in (parameter.detach(), *optimizer.state[parameter].values())
        ]
        before = [tensor.clone() for tensor in kept]
        group["lr"] = lr if isinstance(lr, Tensor) else self.number(lr)
        optimizer.step()
        for now, old in zip(kept, before, strict=True):
            now.copy_(torch.where(finite, now, old))
        optimizer.zero_grad(set_to_none=True)
        return finite

    @contextlib.contextmanager
    def accumulating(self, called: nn.Module, last: bool) -> Iterator[None]:
        """Around the passes of a part of a step: each part but the last is a program of its own."""
        yield
        if not last:
            torch_xla.sync()

    def end_step(self) -> None:
        """Let the devices run what the step has traced; does not wait for them."""
        torch_xla.sync()

    @contextlib.contextmanager
    def averaged(self, ema: Ema) -> Iterator[nn.Module]:
        """The model with its averaged weights, to be called from the CPU, by all hosts alike."""
        with ema.in_place() as model:
            torch_xla.sync()
            yield _Called(self, model)
            torch_xla.sync()
        torch_xla.sync()

    def peak_memory(self) -> int:
        """Nobody counts: torch_xla tells nothing of memory where tensors are those of several devices."""
        return 0

    # --- between processes, and towards the host ---

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes: as it is, for tensors are those of all processes."""
        return tensor

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor on each device; all must ask."""
        if not self._splits_weights:
            return tensor
        return self._gathered(tensor)

    def _gathered(self, tensor: Tensor) -> Tensor:
        whole = tensor * 1  # traced, so that it is compiled once a shape: fetching parts would be each time
        xs.mark_sharding(whole, self.mesh, (None,) * tensor.ndim)
        return whole

    # --- checkpoints ---

    def copy(self, tensors: dict[str, Tensor]) -> Copy:
        """The whole of each tensor on the CPU of the main process, gathered one by one."""
        copies = {}
        for name, tensor in tensors.items():
            copy = self.to_host(tensor)
            if self.is_main:
                copies[name] = copy
        return Copy(copies, files_of(tensors))

    def read(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """Fill tensors from what `write` has written, on whatever hardware it was."""
        read = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors.items()}
        super().read(read, folder)
        for name, tensor in tensors.items():
            tensor.copy_(self._send(read.pop(name), self._spread(tensor)))
        torch_xla.sync()


class _Called(nn.Module):
    """A model on the devices, called with tensors of the CPU and answering with such.

    So that a sampler computes on the CPU: its numbers change with each step, and each would be compiled in.
    """

    def __init__(self, hardware: XlaHardware, model: nn.Module) -> None:
        super().__init__()
        self.config, self.provenance = model.config, model.provenance
        self._hidden = (hardware, model)  # in a tuple, so that `to` does not move it

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """As `Backbone`; the pictures are shared out to all devices."""
        hardware, model = self._hidden
        with torch.inference_mode(False), torch.no_grad():  # XLA's tensors cannot be inference tensors
            inputs = [value if value is None else hardware._send_rows(value) for value in (x, t, y)]
            return hardware._gathered(model(*inputs)).cpu()


def _keep_no_activations(block: nn.Module) -> None:
    """As `train.remat`, with the barrier that keeps XLA from merging the second pass with the first."""
    from torch_xla.utils.checkpoint import checkpoint

    forward = block.forward

    def again(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        if not named:
            return checkpoint(forward, *inputs)

        def positional(*values: Any) -> Any:
            return forward(*values[: len(inputs)], **dict(zip(named, values[len(inputs) :], strict=True)))

        return checkpoint(positional, *inputs, *named.values())

    block.forward = again


def select_xla(precision: str = "auto") -> XlaHardware:
    """All devices that PJRT_DEVICE names (TPU; CPU for tests, CPU_NUM_DEVICES of them), and other hosts'.

    precision: auto is bf16 on a TPU; fp32 makes it compute products in float32, which it else rounds to bf16.

    Raises:
        ValueError: there is no such device, or the environment would make everything bf16.
    """
    if found := [name for name in DOWNCASTS if os.environ.get(name, "0") not in ("", "0")]:
        raise ValueError(
            f"{found[0]} is {os.environ[found[0]]!r}: it would turn weights, averages and the optimizer's "
            "state into bf16, in which they cannot learn; unset it, and give --precision bf16"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("on TPUs one process a host uses all its devices; start it without torchrun")
    try:
        xr.use_spmd()
        kind = xr.device_type()  # where nothing is asked for, a TPU if there is one, else the CPU
        xr.global_runtime_device_count()
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"PJRT_DEVICE is {ASKED!r}, and no such device comes up here ({_first_line(error)}); on a TPU VM "
            "set PJRT_DEVICE=TPU, install libtpu (README, On a TPU), and stop what else uses the TPU"
        ) from error
    if kind != "TPU" and not ASKED:
        raise ValueError(
            f"there is no TPU here, only {kind}; set PJRT_DEVICE=TPU on a TPU VM, PJRT_DEVICE=CPU for a test"
        )
    bf16 = precision == "bf16" or (precision == "auto" and kind == "TPU")
    if not bf16:
        logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)  # warns of every call
        torch_xla.backends.set_mat_mul_precision("highest")
    return XlaHardware(bf16)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
