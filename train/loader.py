"""Batches made ahead of the step that needs them, by other processes or by a thread."""

import contextlib
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from train.picture_data import PictureData
from train.solids import cores

T = TypeVar("T")

AHEAD = 2  # items made before they are asked for, by each process or by the thread
MOST_WORKERS = 16
GRACE = 10  # seconds that a process goes on when it is asked to end
POLL = 0.1  # seconds until a waiting thread looks whether it shall end


def workers_for(data: object) -> int:
    """How many processes should make batches of some data: none of what only has to be copied from a file."""
    if not isinstance(data, PictureData):
        return 0
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's processes share a machine
    return min(max(1, share - 1), MOST_WORKERS)


def load_ahead(make: Callable[[int], T], start: int, stop: int, num_workers: int) -> Iterator[T]:
    """make(start), make(start + 1), ... make(stop - 1), in this order, some of them made ahead.

    num_workers: processes that share the work, to which `make` is pickled; 0: one thread of this process.
    Who stops before the end closes the iterator (`contextlib.closing`), which ends them at once.
    What `make` raises is raised here in its turn, of the same type.

    Raises:
        RuntimeError: a process was killed.
    """
    if start >= stop:
        return iter(())
    return _from_processes(make, start, stop, num_workers) if num_workers else _from_thread(make, start, stop)


# --- processes ---


class _Failure:
    """What a process raised, instead of what it should have made."""

    def __init__(self, error: Exception) -> None:
        self.text = traceback.format_exc()
        try:
            ForkingPickler.loads(ForkingPickler.dumps(error))
            self.error = error
        except Exception:  # errors with arguments of their own often cannot be unpickled
            self.error = RuntimeError(f"{type(error).__name__}: {error}")


class _Steps(Dataset):
    def __init__(self, make: Callable[[int], Any], start: int, stop: int) -> None:
        self.make, self.start, self.stop = make, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Any:
        try:
            return self.make(self.start + index)
        except Exception as error:
            return _Failure(error)


def _begin(worker: int) -> None:
    """Leave signals, which a terminal or a scheduler sends to all processes, to the one that started us."""
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # asked to end, do so a little later: that one may still want its batch
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    torch.set_num_threads(1)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started in the block ignores what schedulers send to all processes of a job."""
    ours = {}
    if threading.current_thread() is threading.main_thread():
        names = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
        ours = {name: signal.signal(getattr(signal, name), signal.SIG_IGN) for name in names}
    try:
        yield
    finally:
        for name, handler in ours.items():
            signal.signal(getattr(signal, name), handler)


def _as_it_is(item: Any) -> Any:
    return item


def _from_processes(make: Callable[[int], T], start: int, stop: int, num_workers: int) -> Iterator[T]:
    methods = torch.multiprocessing.get_all_start_methods()
    # Not forked from here: locks that other threads hold, OpenMP's and CUDA's state would come along.
    context = torch.multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["train.loader"])  # imports torch once, not in each process
        with _deaf():
            forkserver.ensure_running()
    loader = DataLoader(
        _Steps(make, start, stop),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        multiprocessing_context=context,
    )
    items = iter(loader)
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise RuntimeError(
                    f"a process that makes batches was killed ({reason}); most often for lack of memory, in "
                    "a container of /dev/shm: use fewer with --num-workers, or 0 for none"
                ) from None  # whose frames would keep the other processes alive
            if isinstance(item, _Failure):
                raise item.error from RuntimeError(f"in a process that makes batches:\n{item.text}")
            yield item
    finally:
        del items, loader  # now, and not when an error that refers to this frame is forgotten: it ends them


# --- one thread ---


def _from_thread(make: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
    ended = threading.Event()

    def hand_over(item: Any, error: BaseException | None) -> bool:
        """Whether somebody still waits for it."""
        while not ended.is_set() and threading.main_thread().is_alive():
            try:
                made.put((item, error), timeout=POLL)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        for step in range(start, stop):
            try:
                item, error = make(step), None
            except BaseException as raised:
                item, error = None, raised
            if not hand_over(item, error) or error is not None:
                return

    thread = threading.Thread(target=work, name="load_ahead")
    thread.start()
    try:
        for _ in range(start, stop):
            item, error = made.get()
            if error is not None:
                raise error
            yield item
    finally:
        ended.set()
        thread.join()
