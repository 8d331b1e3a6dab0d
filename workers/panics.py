"""What no handler expects: a panic of a library in Rust is a BaseException in Python.

Outside an `except Exception` it would end its thread, or leave Celery without an answer to a message, for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Panic(Exception):
    """A BaseException that does not mean the end of the process."""


@contextmanager
def panics_as_exceptions() -> Iterator[None]:
    """Raises Panic for it."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise Panic(f"{type(error).__name__}: {error}") from error
