"""What the C library keeps of freed memory, given back to the system.

Loading and warming up a model leaves its freed pieces in the heap of the thread that did it, where no other thread
uses them: some hundred megabytes for the shipped checkpoint, and as much again with each change of checkpoint. Asking
glibc to keep less at all times would cost each forward a fifth of its time for pages that it needs again at once.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Takes some tens of milliseconds, in which other threads go on; does nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
