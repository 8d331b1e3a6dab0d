"""The place that the outcome of minutes of work is written to. Knows nothing of what it will be."""

from pathlib import Path
from tempfile import TemporaryFile


def make_room(path: Path) -> None:
    """Makes the folder that `path` is to lie in; raises OSError where nothing can be written there.

    Called before the work: asked by writing, as permissions alone know nothing of a disk that is read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=path.parent):
        pass
