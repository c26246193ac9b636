"""The training loop."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from train.batch import Batch
from train.batches import Batches
from train.changes import note
from train.checkpoint import Checkpoints
from train.config import TrainConfig
from train.data import open_data
from train.hardware import Hardware
from train.loader import load_ahead, workers_for
from train.plan import micro_batch_for, which_batch_would_fit
from train.preemption import Preempted, Preemption
from train.record import Recorder
from train.run_folder import claim, claim_data, hold
from train.state import TrainState, fresh_state
from train.tracing import NoProfiler, Profiler

MOST_DETOURS = 3  # from one checkpoint, before a run gives up


def train(config: TrainConfig, run_dir: Path, hardware: Hardware, tracing: bool = False) -> Path:
    """Run a recipe, or continue it where `run_dir` stopped; returns the path of the averaged weights.

    tracing: write where the time of a few steps goes into the run's folder.

    Raises:
        ValueError: the folder holds a run of another recipe, the data cannot be used, or memory is short.
        FloatingPointError: losses or gradients are no longer finite, whichever way the run takes.
        OSError: a checkpoint cannot be written.
        Preempted: a signal asked the run to end.
    """
    with Preemption() as preemption, hold(run_dir, hardware):
        claim(run_dir, config, hardware)
        data = open_data(config, run_dir / "skipped.jsonl")
        hardware.wait_for_all()  # the first to come may have decoded it for hours
        claim_data(run_dir, data, hardware)
        network = config.network(data.info)
        micro_batch = micro_batch_for(
            config, data.info, hardware.devices, hardware.memory(), bf16=hardware.bf16
        )
        workers = workers_for(data) if config.num_workers < 0 else config.num_workers
        state = fresh_state(config, network, hardware)
        saved = Checkpoints(run_dir, hardware, config.keep_checkpoints, config.keep_every)
        saved.restore(state)
        with (
            saved,
            Recorder(config, run_dir, hardware, state, data) as record,
            contextlib.closing(
                Profiler(run_dir) if tracing and hardware.is_main else NoProfiler()
            ) as profiler,
            contextlib.ExitStack() as stack,
        ):
            preemption.waits = True
            while state.step < config.total_steps:
                rows = hardware.rows(config.batch_size)
                batches = Batches(config, network, data, rows, state.counters.detours)
                ahead = load_ahead(batches, state.step, config.total_steps, workers)
                for batch in stack.enter_context(contextlib.closing(ahead)):
                    hardware.seed(config.seed, state.step)
                    with explained(config, hardware, micro_batch):
                        terms, t, norm = gradients(config, state, batch, micro_batch, hardware)
                        finite = norm.isfinite() & hardware.add_up(terms["loss"].sum()).isfinite()
                        done = hardware.update(state.optimizer, config.lr_at(state.step), finite)
                    state.ema.update(
                        [hardware.number(1 - decay) * done for decay in state.ema.decays(state.step)]
                    )
                    hardware.end_step()
                    state.counters.step += 1
                    record.step(terms, t, norm, done)
                    profiler.step()

                    stopped = hardware.largest(int(bool(preemption.asked)))
                    if stopped or record.is_due("log") or record.is_due("checkpoint"):
                        record.write()
                        if what := astray(config, hardware, state):
                            ahead.close()
                            go_back(what, run_dir, hardware, state, saved, batches)
                            record.rewind()
                            break  # to take other batches from there
                    with record.aside():
                        if stopped or (record.is_due("checkpoint") and not state.counters.in_row):
                            saved.save(state)
                            record.save_weights()
                        if record.is_due("sample") and not stopped:  # time may be short; a resume draws it
                            record.sample()
                    if stopped:
                        saved.wait()
                        hardware.wait_for_all()  # the main process may be the last to be ready
                        asked = preemption.asked or "asked by another process"
                        raise Preempted(f"{asked}: stopped with a checkpoint")
            return record.weights()


def gradients(
    config: TrainConfig, state: TrainState, batch: Batch, micro_batch: int, hardware: Hardware
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Fill the parameters' gradients with those of the whole batch's mean loss, from this process's rows.

    Returns the losses of these rows and their noise levels, (n,) each, and the norm of the gradients, ().
    """
    size = micro_batch * hardware.devices // hardware.world
    parts, found = list(batch.parts(size)), []
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        part = hardware.put(part)
        with hardware.accumulating(state.called, last):
            with hardware.autocast():
                terms = state.losses(part)
            (terms["loss"].mean() / len(parts)).backward()
        found.append({name: value.detach() for name, value in terms.items()} | {"t": part.t})
    whole = {name: torch.cat([terms[name] for terms in found]) for name in found[0]}
    t = whole.pop("t")
    return whole, t, hardware.clip(list(state.trained().values()), config.grad_clip)


@contextlib.contextmanager
def explained(config: TrainConfig, hardware: Hardware, micro_batch: int) -> Iterator[None]:
    """Say what would fit, where a device runs out of memory. Raises ValueError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and "allocate memory" not in str(error):  # what the CPU's allocator says
            raise
        raise ValueError(
            f"out of memory: {which_batch_would_fit(config, hardware.devices, micro_batch)}"
        ) from error


def astray(config: TrainConfig, hardware: Hardware, state: TrainState) -> str:
    """Why the run must not go on from where it is; nothing if it may."""
    last = state.step == config.total_steps
    if state.longest_row >= config.max_skipped or (last and state.counters.in_row):
        return f"loss or gradient not finite in {state.longest_row} steps in a row"
    if hardware.largest(int(not state.is_finite())):
        return "weights not finite"
    return ""


def go_back(
    what: str, run_dir: Path, hardware: Hardware, state: TrainState, saved: Checkpoints, batches: Batches
) -> None:
    """To the last checkpoint, from where the run takes the same pictures with other noise.

    Raises:
        FloatingPointError: there is none, or the run has gone back to it several times.
    """
    step, detour = state.step, state.counters.detours + 1
    what += (
        f" at step {step} (pictures {batches.indices(step - 1)[:8].tolist()} ...); lower --lr, or set "
        "--grad-clip 1 or --qk-norm, in a new --run-dir"
    )
    if not saved.restore(state):
        raise FloatingPointError(f"{what}; there is no checkpoint yet to go back to")
    if detour - state.counters.detours > MOST_DETOURS:
        raise FloatingPointError(
            f"{what}; the run went back to step {state.step} {MOST_DETOURS} times, with other noise, in vain"
        )
    state.counters.detours = detour
    if hardware.is_main:
        note(run_dir, {"after": f"step_{state.step:08d}", "went_back_from": step})
        tqdm.write(f"{what}; going back to step {state.step}, with other noise", file=sys.stderr)
