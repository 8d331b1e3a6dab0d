"""What libraries keep in memory: that which a worker has no use for, and that which has to be kept.

The C library keeps what was freed. Loading and warming up a model leaves its freed pieces in the heap of the thread
that did it, where no other thread uses them: after five changes of checkpoint 1,440 MB instead of 1,210. Asking glibc
to keep less at all times (MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ of 128 kB) makes a forward take half as
long again: it needs the same pages in the next batch.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

# Operations that torch keeps prepared, each for one shape of its input. After some hundred batches of all sizes the
# 1,024 of its own choice come to 200 MB more than 64, and those to 40 MB more than 8; no forward is quicker for them.
OPERATIONS_KEPT = "8"


def spare() -> None:
    """Before torch is imported, which reads this once."""
    os.environ.setdefault("LRU_CACHE_CAPACITY", OPERATIONS_KEPT)
    # Cores that compute together wait for each other by spinning. Where somebody else has one of them, the rest spin
    # that away which would bring it back: beside other work a forward took seconds (OpenMP 5.2, OMP_WAIT_POLICY).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # transformers drags in both, and nothing here calls them: the compiler of GPU kernels for `torch.compile` (70 MB),
    # and numerics that some of its models are trained with (35 MB).
    for unused in ("triton", "scipy"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """While libraries come in nothing is collected, and what lives then is out of the garbage collector's sight.

    They are half a million objects that stay. A full collection looked through them with every thread standing still,
    many times while they came and for 0.75 s about every ninety seconds of an import, and the interpreter looked again
    before it ended. The few megabytes of garbage that they leave stay with them: finding it takes as long once more.
    """
    with _collecting_nothing():
        yield
    gc.freeze()


@contextmanager
def loading() -> Iterator[None]:
    """The same while a model is loaded, but for its garbage: a replaced model needs no collector to go, once the
    collection at the end of its load has broken the circles that loading leaves around its weights.
    """
    with _collecting_nothing():
        yield
    # Not after a load that failed: what it leaves, its error may still hold, and it has to be collected later.
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Takes some tens of milliseconds, in which other threads go on; does nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def let_go_of_libraries() -> None:
    """The pages of libraries that nobody has written to; what is used of them comes back at a touch.

    The registry's torch links CUDA's libraries, and linking reads them: of 330 MB of libraries that a worker has in
    memory after its start it uses 100. Not while a library may be unloaded, since what follows in its place would lose
    its contents.
    """
    process, madvise = psutil.Process(), ctypes.CDLL(None).madvise
    if not hasattr(process, "memory_maps"):  # a kernel that does not tell
        return
    for mapped in process.memory_maps(grouped=False):
        if ".so" not in mapped.path or "w" in mapped.perms or mapped.anonymous or mapped.swap:
            continue  # addresses that were filled in while it was linked have no other copy; nor where swapped out
        start, end = (int(address, 16) for address in mapped.addr.split("-"))
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
