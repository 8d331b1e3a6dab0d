import errno
import os
import stat
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from fsspec import AbstractFileSystem

from catalog import photo_store as module
from catalog.errors import PhotoMissing, StoreUnavailable
from catalog.photo_store import PhotoStore
from catalog.settings import Settings

A, B = "a" * 64, "b" * 64


@pytest.fixture(params=["folder", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PhotoStore:
    """The store in a folder, and in one that knows whole objects only."""
    if request.param == "folder":
        return PhotoStore.open((tmp_path / "photos").as_uri())
    return PhotoStore.open(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def in_folder(folder: Path) -> PhotoStore:
    return PhotoStore.open(folder.as_uri())


def test_a_photo_comes_back_as_it_was_put(store: PhotoStore) -> None:
    store.put(A, b"original", b"view")
    assert (store.original(A), store.model_view(A)) == (b"original", b"view")


def test_putting_a_photo_again_changes_nothing(store: PhotoStore) -> None:
    store.put(A, b"original", b"view")
    store.put(A, b"original", b"VIEW")
    assert store.model_view(A) == b"view"


@pytest.mark.parametrize("left", [b"", b"vi", b"view and more"])
def test_putting_a_photo_again_mends_what_is_not_whole(store: PhotoStore, left: bytes) -> None:
    """As a copy that broke off may have left it."""
    store.put(A, b"original", b"view")
    store._filesystem.pipe_file(store._path(A, module.MODEL_VIEW), left)
    store.put(A, b"original", b"view")
    assert store.model_view(A) == b"view"


def test_an_object_store_that_never_answers_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    over = threading.Event()
    filesystem = Mock(spec=AbstractFileSystem)
    for name in ("open", "size", "rm_file"):
        getattr(filesystem, name).side_effect = lambda *_: over.wait(60)
    frozen = PhotoStore(filesystem, "root")
    try:
        for ask in (
            lambda: frozen.put(A, b"original", b"view"),
            lambda: frozen.model_view(A),
            lambda: frozen.delete(A),
        ):
            with pytest.raises(StoreUnavailable, match="no answer within"):
                ask()
    finally:
        over.set()


def test_a_missing_photo_says_which(store: PhotoStore) -> None:
    store.put(A, b"original", b"view")
    for read in (store.original, store.model_view):
        with pytest.raises(PhotoMissing, match=B):
            read(B)


def test_a_deleted_photo_is_missing_and_deleting_again_is_no_error(store: PhotoStore) -> None:
    store.put(A, b"original", b"view")
    store.put(B, b"other", b"view")
    for _ in range(2):
        store.delete(A)
        with pytest.raises(PhotoMissing):
            store.original(A)
    assert store.original(B) == b"other"


def test_putting_completes_a_photo_of_which_only_one_part_is_there(store: PhotoStore) -> None:
    store.put(A, b"original", b"view")
    store._filesystem.rm_file(store._path(A, module.MODEL_VIEW))
    store.put(A, b"original", b"view")
    assert store.model_view(A) == b"view"


@pytest.mark.parametrize(
    "photo_id", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "g" * 64]
)
def test_an_id_that_is_no_hash_never_becomes_a_path(in_folder: PhotoStore, photo_id: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: in_folder.put(photo_id, b"", b""),
        lambda: in_folder.original(photo_id),
        lambda: in_folder.delete(photo_id),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            call()


def test_a_full_disk_is_a_fault_of_the_world_and_leaves_no_part_behind(
    in_folder: PhotoStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            in_folder.put(A, b"original", b"view")
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    in_folder.put(A, b"original", b"view")
    assert in_folder.original(A) == b"original"


def test_a_store_that_cannot_be_read_is_a_fault_of_the_world(in_folder: PhotoStore, folder: Path) -> None:
    in_folder.put(A, b"original", b"view")
    original = folder / "aa" / f"{A}.original"
    original.unlink()
    original.mkdir()
    with pytest.raises(StoreUnavailable, match="does not give"):
        in_folder.original(A)
    with pytest.raises(StoreUnavailable, match="cannot delete"):
        in_folder.delete(A)


def test_a_store_whose_root_is_a_file_is_a_fault_of_the_world(in_folder: PhotoStore, folder: Path) -> None:
    folder.write_text("in the way")
    with pytest.raises(StoreUnavailable, match="cannot take"):
        in_folder.put(A, b"original", b"view")


class NobodyAnswers(Exception):
    """Like the errors of botocore: of a tree of their own."""


class SilentObjectStore(AbstractFileSystem):
    """An object store behind a network that is down."""

    def _ask(self, *args: Any, **kwargs: Any) -> Any:
        raise NobodyAnswers("could not connect to the endpoint")

    exists = info = pipe_file = open = rm_file = _ask


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda store: store.put(A, b"original", b"view"), "cannot take"),
        (lambda store: store.original(A), "does not give"),
        (lambda store: store.model_view(A), "does not give"),
        (lambda store: store.delete(A), "cannot delete"),
    ],
)
def test_an_object_store_that_does_not_answer_is_a_fault_of_the_world(
    call: Callable[[PhotoStore], Any], words: str
) -> None:
    with pytest.raises(StoreUnavailable, match=f"{words}.*could not connect"):
        call(PhotoStore(SilentObjectStore(), "bucket"))


def test_a_defect_is_no_fault_of_the_folder(in_folder: PhotoStore) -> None:
    with pytest.raises(TypeError):
        in_folder.put(A, "no bytes", b"view")  # type: ignore[arg-type]


def test_a_file_too_large_to_be_ours_is_not_read_into_memory(
    in_folder: PhotoStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_READ_BYTES", 10)
    in_folder.put(A, b"x" * 11, b"x" * 10)
    assert in_folder.model_view(A) == b"x" * 10
    with pytest.raises(StoreUnavailable, match="over 10 bytes"):
        in_folder.original(A)


def test_a_protocol_nobody_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"nosuch.*TAGSMITH_PHOTO_STORE_URL"):
        PhotoStore.open("nosuch://bucket")


def test_readers_never_see_half_a_photo_while_many_put_and_delete_it(in_folder: PhotoStore) -> None:
    content = os.urandom(300_000)
    seen: set[int] = set()

    def put(_: int) -> None:
        in_folder.put(A, content, content)

    def read(_: int) -> None:
        try:
            seen.add(len(in_folder.original(A)))
        except PhotoMissing:
            seen.add(0)

    def delete(_: int) -> None:
        in_folder.delete(A)

    with ThreadPoolExecutor(6) as threads:
        for action in (put, read, delete, put, read, delete) * 5:
            threads.submit(action, 0)
    put(0)
    read(0)
    assert seen <= {0, len(content)}
    assert in_folder.original(A) == content


def test_photos_lie_in_the_folder_of_the_state_whatever_its_name(tmp_path: Path) -> None:
    url = Settings(var=tmp_path / "my phötos %20 #1").resolved_photo_store_url()
    PhotoStore.open(url).put(A, b"original", b"view")
    assert PhotoStore.open(url).original(A) == b"original"
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*.original")] == [
        ("my phötos %20 #1", "photos")
    ]


def test_what_a_process_that_died_was_writing_is_removed_after_a_while(
    in_folder: PhotoStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            in_folder.put(A, b"original", b"view")
    (left,) = (folder / "unfinished").iterdir()
    in_folder.remove_unfinished()
    assert left.exists(), "somebody may still be writing it"
    os.utime(left, (0, 0))
    in_folder.remove_unfinished()
    assert not left.exists()


def test_whoever_finds_an_original_finds_its_view_too(
    store: PhotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a process dies between the two."""
    seen: list[str] = []
    write, remove = store._write, store._filesystem.rm_file

    def watched_write(path: str, content: bytes) -> None:
        seen.append(path)
        write(path, content)

    def watched_remove(path: str) -> None:
        seen.append(path)
        remove(path)

    monkeypatch.setattr(store, "_write", watched_write)
    monkeypatch.setattr(store._filesystem, "rm_file", watched_remove)
    store.put(A, b"original", b"view")
    store.delete(A)
    parts = [path.rpartition(".")[2] for path in seen]
    assert parts == [module.MODEL_VIEW, module.ORIGINAL, module.ORIGINAL, module.MODEL_VIEW]


def test_a_photo_and_the_name_of_its_file_are_on_disk_before_it_is_accepted(
    in_folder: PhotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    in_folder.put(A, b"original", b"view")
    assert synced == [False, True, False, True], "of each part the file, then its folder"
