"""Photos by the SHA-256 of their bytes, over fsspec: a folder by default, S3 and its like by setting.

Beside each original lies its model view, the small JPEG that workers read. Knows no database and no picture format.
"""

import functools
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from catalog.errors import PhotoMissing, StoreUnavailable
from catalog.patience import Patience

Answer = TypeVar("Answer")

ORIGINAL, MODEL_VIEW = "original", "model_view"
PHOTO_ID = re.compile(r"[0-9a-f]{64}")
# Nothing larger can have come in: the most a whole request may have by default.
MAX_READ_BYTES = 64_000_000
# An object store is given so long for one photo. The threads of web and those of a worker's tasks are as many.
PATIENCE_S = 30.0
AT_ONCE = 64
# Where a folder's photos are written; in the same file system, so that they can be renamed to their places.
UNFINISHED = "unfinished"
UNFINISHED_S = 3600.0


class PhotoStore:
    """A folder of photos: `<root>/<first two digits>/<id>.original` and `<id>.model_view`."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._filesystem = filesystem  # fsspec ships no types
        self._root = root.rstrip("/")
        # The clients of object stores raise errors of their own when nobody answers, and few of them are an OSError.
        self._faults = OSError if isinstance(filesystem, LocalFileSystem) else Exception
        # A folder is asked plainly: to hand that to another thread would take longer than most of its answers.
        self._patience = None if isinstance(filesystem, LocalFileSystem) else Patience(AT_ONCE, PATIENCE_S)

    @classmethod
    def open(cls, url: str) -> Self:
        """Opens the store at an fsspec URL. Raises StoreUnavailable where its protocol is not installed."""
        try:
            filesystem, root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            protocol = url.split(":", 1)[0]
            raise StoreUnavailable(
                f"the photo store protocol {protocol!r} cannot be used ({error}); install its fsspec "
                "implementation or correct TAGSMITH_PHOTO_STORE_URL"
            ) from error
        return cls(filesystem, root)

    def put(self, photo_id: str, original: bytes, model_view: bytes) -> None:
        """Stores both parts; a part that is there already, in the same size, is left alone. Raises StoreUnavailable."""
        # The model view first: who finds the original may rely on the other.
        for part, content in ((MODEL_VIEW, model_view), (ORIGINAL, original)):
            write = functools.partial(self._write_unless_there, self._path(photo_id, part), content)
            self._ask(f"cannot take photo {photo_id}", write)

    def original(self, photo_id: str) -> bytes:
        """The photo as it was stored. Raises PhotoMissing or StoreUnavailable."""
        return self._read(photo_id, ORIGINAL)

    def model_view(self, photo_id: str) -> bytes:
        """The small JPEG for the model. Raises PhotoMissing or StoreUnavailable."""
        return self._read(photo_id, MODEL_VIEW)

    def delete(self, photo_id: str) -> None:
        """Removes both parts; one that is gone already is no error. Raises StoreUnavailable."""
        paths = [self._path(photo_id, part) for part in (ORIGINAL, MODEL_VIEW)]
        self._ask(f"cannot delete photo {photo_id}", functools.partial(self._remove, paths))

    def remove_unfinished(self) -> None:
        """What processes that died were writing: a folder's only, object stores show a whole object or none."""
        if not isinstance(self._filesystem, LocalFileSystem):
            return
        self._ask("cannot remove what was not finished", self._remove_unfinished)

    def _ask(self, failure: str, call: Callable[[], Answer]) -> Answer:
        """Each call to the filesystem: its faults, and that it gives no answer, become StoreUnavailable."""
        try:
            return call() if self._patience is None else self._patience(call)
        except self._faults as error:
            raise StoreUnavailable(f"the photo store {failure}: {error}") from error

    def _path(self, photo_id: str, part: str) -> str:
        # The id becomes a path: anything else could climb out of the store.
        if not PHOTO_ID.fullmatch(photo_id):
            raise ValueError(f"a photo id is 64 hexadecimal digits, not {photo_id!r}")
        return f"{self._root}/{photo_id[:2]}/{photo_id}.{part}"

    def _size(self, path: str) -> int | None:
        with suppress(FileNotFoundError):
            return int(self._filesystem.size(path))
        return None

    def _read(self, photo_id: str, part: str) -> bytes:
        read = functools.partial(self._content, self._path(photo_id, part))
        content = self._ask(f"does not give photo {photo_id}", read)
        if content is None:
            raise PhotoMissing(photo_id, part)
        if len(content) > MAX_READ_BYTES:
            raise StoreUnavailable(
                f"the {part} of photo {photo_id} has over {MAX_READ_BYTES} bytes; this service stored no such thing"
            )
        return content

    def _content(self, path: str) -> bytes | None:
        """No more of it than tells that it is too much; None where it is not there."""
        with suppress(FileNotFoundError), self._filesystem.open(path, "rb") as file:
            return bytes(file.read(MAX_READ_BYTES + 1))
        return None

    def _remove(self, paths: Sequence[str]) -> None:
        # The other way round than `put`, for the same reason.
        for path in paths:
            with suppress(FileNotFoundError):
                self._filesystem.rm_file(path)

    def _remove_unfinished(self) -> None:
        for path in Path(self._root, UNFINISHED).glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > UNFINISHED_S:
                    path.unlink()

    def _write_unless_there(self, path: str, content: bytes) -> None:
        # By its size: half a file that a damaged disk or a broken copy left would spoil the photo for good.
        if self._size(path) != len(content):
            self._write(path, content)

    def _write(self, path: str, content: bytes) -> None:
        if isinstance(self._filesystem, LocalFileSystem):
            _write_local(Path(path), Path(self._root, UNFINISHED), content)
        else:
            # Object stores show a whole object or none.
            self._filesystem.pipe_file(path, content)


def _write_local(path: Path, unfinished: Path, content: bytes) -> None:
    """Writes elsewhere and renames, synced: a reader never sees half a photo, and a crash loses none that was
    accepted.
    """
    for folder in (path.parent, unfinished):
        folder.mkdir(parents=True, exist_ok=True)
    beside = unfinished / f"{path.name}.{secrets.token_hex(8)}"
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder_of_photo = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder_of_photo)
    finally:
        os.close(folder_of_photo)
