"""Where a step's time goes: torch's profiler over a few steps, after some that warm up."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from dit.files import atomic_write

WARM_UP, RECORDED = 3, 5  # steps
ROWS = 40  # of the table


class Profiler:
    """Traces some steps of a run into RUN/profile: a Chrome trace and a table of what costs the most.

    `step()` after each optimizer step. Open trace.json in chrome://tracing or ui.perfetto.dev.
    """

    def __init__(self, run_dir: Path, warm_up: int = WARM_UP, recorded: int = RECORDED) -> None:
        """warm_up: steps that are let pass first. recorded: steps that are traced."""
        if warm_up < 0 or recorded < 1:
            raise ValueError(f"warm_up is {warm_up}, recorded {recorded}; trace at least one step")
        self.folder = run_dir / "profile"
        self.warm_up, self.recorded = warm_up, recorded
        self.done = 0  # steps
        self._profile: profile | None = None
        if not warm_up:
            self._start()

    @property
    def finished(self) -> bool:
        """Whether the trace is written: no later step is slowed down."""
        return self.done >= self.warm_up + self.recorded

    def step(self) -> None:
        """Note that an optimizer step is done; the last of the traced ones writes the files."""
        if self.finished:
            return
        self.done += 1
        if self.done == self.warm_up:
            self._start()
        elif self.finished:
            self._stop()

    def close(self) -> None:
        """Write what was traced, should the run end before all steps were."""
        self._stop()

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities, profile_memory=True)
        self._profile.start()

    def _stop(self) -> None:
        if self._profile is None:
            return
        traced, self._profile = self._profile, None
        traced.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        events = traced.key_averages()
        on_device = any(event.self_device_time_total for event in events)
        order = "self_cuda_time_total" if on_device else "self_cpu_time_total"
        steps = self.done - self.warm_up
        text = f"{steps} steps after {self.warm_up}\n{events.table(sort_by=order, row_limit=ROWS)}\n"
        atomic_write(self.folder / "operations.txt", lambda path: path.write_text(text))
        atomic_write(self.folder / "trace.json", lambda path: traced.export_chrome_trace(str(path)))


class NoProfiler:
    """In the place of a `Profiler` where none is wanted."""

    def step(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
