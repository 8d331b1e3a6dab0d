"""Threads that compute on cores of their own.

Several cores on one small network wait for each other after every layer, and wait long where somebody else has one of
them; several small batches, or the two towers of one, each on a core of its own, wait for nobody.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier, Lock, get_native_id

import torch

# Steps of niceness behind the rest of the process: a fifth of its share where both want a core, and all of a core that
# nobody else wants. More would stop these threads on a machine that is busy with something else.
BEHIND = 7


@contextmanager
def one_core() -> Iterator[None]:
    """Inside the block torch uses one core: for tensors so small that sharing them takes ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads(count: int, cores: int = 1, *, behind: bool = False) -> ThreadPoolExecutor:
    """So many threads, in each of which torch uses so many cores. `behind`: those of the process that are not of this
    pool go first.
    """
    before = torch.get_num_threads()
    begun = Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread takes the number of the process at its first question, and forgets its own
        torch.set_num_threads(cores)
        if behind:
            # Of this thread alone: on Linux each has a niceness of its own (setpriority(2)).
            thread = get_native_id()
            # A sandbox may forbid it: then they go beside the others.
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + BEHIND)
        begun.wait()

    pool = ThreadPoolExecutor(count, "own-cores", begin)
    for _ in range(count):
        pool.submit(int)  # a thread that has not begun is not free, so each gets one of its own
    begun.wait()
    # Torch hands the number that was set last to every thread that begins after it.
    torch.set_num_threads(before)
    return pool


class Pair:
    """For so many batches at once two threads each, so that the towers of a batch run side by side."""

    def __init__(self, batches: int, cores: int) -> None:
        """`cores` of each thread."""
        self.texts = threads(batches, cores)  # and what follows the towers
        self.photos = threads(batches, cores)


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
