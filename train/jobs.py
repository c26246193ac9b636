"""Several small models at a time on one processor."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def usual_jobs() -> int:
    """One where there is a GPU, which a single job fills; else one a thread of the processor."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


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
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
        try:
            for done in as_completed([pool.submit(work, item) for item in items]):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
