"""Several small models at a time on one processor."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import torch

LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Item = TypeVar("Item")
Result = TypeVar("Result")


def usual_jobs() -> int:
    """One where there is a GPU, which gets larger batches instead; else one a thread of the processor."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


@contextmanager
def _threads_of_libraries(threads: int) -> Iterator[None]:
    """What is started meanwhile reads from its environment how many threads to take: torch and numpy both."""
    before = {name: os.environ.get(name) for name in LIBRARIES}
    os.environ.update(dict.fromkeys(LIBRARIES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def at_once(work: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """What `work` makes of each item, as they are done: some at a time, each in a process of its own.

    The processor's threads are shared out: a small model leaves most of them idle when all serve it. Where
    one fails, those not begun are dropped, and its error is raised. work and items pickle. A single job stays
    in this process.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with _threads_of_libraries(threads), ProcessPoolExecutor(jobs, context) as pool:
        try:
            for done in as_completed([pool.submit(work, item) for item in items]):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
