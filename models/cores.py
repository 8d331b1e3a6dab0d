"""Threads that compute on one core each.

Several cores on one small network wait for each other after every layer, and wait long where somebody else has one of
them; several small batches, each on a core of its own, wait for nobody.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock

import torch


@contextmanager
def one_core() -> Iterator[None]:
    """Inside the block torch uses one core: for tensors so small that sharing them takes ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_core_each(cores: int) -> ThreadPoolExecutor:
    """As many threads as cores, in each of which torch uses one."""
    before = torch.get_num_threads()
    begun = Barrier(cores + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread takes the number of the process at its first question, and forgets its own
        torch.set_num_threads(1)
        begun.wait()

    pool = ThreadPoolExecutor(cores, "one-core", begin)
    for _ in range(cores):
        pool.submit(int)  # a thread that has not begun is not free, so each gets one of its own
    begun.wait()
    # Torch hands the number that was set last to every thread that begins after it.
    torch.set_num_threads(before)
    return pool


class Callers:
    """How many are inside the block at once: who enters is told how many others were there already."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0

    def __enter__(self) -> int:
        with self._lock:
            self._inside += 1
            return self._inside - 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
