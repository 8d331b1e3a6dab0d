"""A clock for what a stranger could draw out. Knows nothing of what it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from web import problems
from web.problems import ProblemError


@contextmanager
def calls_after(seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Calls `end`, on a thread of its own, where the block takes longer.

    Raises ProblemError (503) where the system has no thread left for it: nothing goes on without its clock.
    """
    clock = threading.Timer(seconds, end)
    clock.daemon = True
    try:
        clock.start()
    except RuntimeError as error:
        raise ProblemError(
            problems.BUSY,
            "No thread is free for this upload; try again shortly.",
            headers={"Retry-After": "5"},
        ) from error
    try:
        yield
    finally:
        clock.cancel()
