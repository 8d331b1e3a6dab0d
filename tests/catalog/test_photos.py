import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from catalog import photos
from catalog.database import transaction
from catalog.errors import CatalogError, PhotoMissing, StoreUnavailable
from catalog.photo_store import PhotoStore

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop

A = "a" * 64


@pytest.fixture
def stored(photo_store: PhotoStore) -> PhotoStore:
    photo_store.put(A, b"original", b"view")
    return photo_store


def is_stored(store: PhotoStore) -> bool:
    try:
        store.original(A)
    except PhotoMissing:
        return False
    return True


def test_the_photos_of_a_deleted_product_are_removed(
    shop: "Shop", engine: Engine, stored: PhotoStore
) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)
    assert photos.remove_released(engine, stored, free) == 1
    assert not is_stored(stored)
    assert shop.sql("SELECT count(*) FROM photos")[0][0] == 0


def test_a_photo_taken_up_again_before_its_removal_stays(
    shop: "Shop", engine: Engine, stored: PhotoStore
) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)
    again, _ = shop.accept(photos=[shop.photo("a")])
    assert photos.remove_released(engine, stored, free) == 0
    assert is_stored(stored)
    assert shop.sql("SELECT released_at FROM photos") == [(None,)]
    assert shop.product(again.id).photos == (shop.photo("a"),)


def test_a_photo_another_tenant_took_up_stays_for_them(
    shop: "Shop", engine: Engine, stored: PhotoStore, make_tenant: Callable[[str], str]
) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)
    other = shop.of(make_tenant("another"))
    theirs, _ = other.accept(photos=[shop.photo("a")])
    assert photos.remove_released(engine, stored, free) == 0
    assert is_stored(stored)
    assert other.product(theirs.id).photos == (shop.photo("a"),)
    assert shop.sql("SELECT tenant_id FROM photos") == [(other.tenant,)]


def test_a_photo_that_is_announced_again_is_released_only_where_nobody_holds_it(
    shop: "Shop", engine: Engine
) -> None:
    shop.accept(photos=[shop.photo("a")])
    shop.delete(shop.accept(photos=[shop.photo("b")])[0].id)
    shop.sql("UPDATE photos SET released_at = now() - interval '1 day' WHERE released_at IS NOT NULL")
    with transaction(engine) as session:
        photos.announce(session, shop.tenant, [shop.photo("a"), shop.photo("b")])
    fresh = "released_at > now() - interval '1 hour'"
    assert shop.sql(f"SELECT {fresh} FROM photos ORDER BY id") == [(None,), (True,)]


def test_a_store_that_refuses_leaves_the_photo_marked_for_the_next_time(
    shop: "Shop", engine: Engine, stored: PhotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)

    def refuse(photo_id: str) -> None:
        raise StoreUnavailable("no store")

    with monkeypatch.context() as patch:
        patch.setattr(stored, "delete", refuse)
        with pytest.raises(StoreUnavailable):
            photos.remove_released(engine, stored, free)
    assert photos.remove_released(engine, stored) == 1
    assert not is_stored(stored)


def test_an_acceptance_waits_while_the_same_photo_is_being_removed(
    shop: "Shop",
    engine: Engine,
    stored: PhotoStore,
    make_tenant: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of another tenant. Afterwards its second `put` brings the bytes back: see the module's rules."""
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)
    other = shop.of(make_tenant("another"))
    removing, accepted = threading.Event(), threading.Event()
    delete = stored.delete

    def slow_delete(photo_id: str) -> None:
        removing.set()
        assert not accepted.wait(0.3)
        delete(photo_id)

    def accept() -> None:
        removing.wait()
        other.accept(photos=[shop.photo("a")])
        accepted.set()

    monkeypatch.setattr(stored, "delete", slow_delete)
    accepting = threading.Thread(target=accept)
    accepting.start()
    assert photos.remove_released(engine, stored, free) == 1
    accepting.join()
    assert accepted.is_set()
    stored.put(A, b"original", b"view")
    assert photos.remove_released(engine, stored) == 0
    assert is_stored(stored)


def test_a_release_sees_a_reference_that_is_being_committed(shop: "Shop", engine: Engine) -> None:
    """The deletion of one product waits for the acceptance of another with the same photo, and then spares it."""
    product, _ = shop.accept(photos=[shop.photo("a")])
    freed: list[list[str]] = []
    deleting = threading.Thread(target=lambda: freed.append(shop.delete(product.id)))
    second, _ = shop.accept("Second")
    with transaction(engine) as session:
        photos.hold(session, shop.tenant, second.id, [shop.photo("a")])
        deleting.start()
        deleting.join(0.2)
        assert deleting.is_alive()
    deleting.join()
    assert freed == [[]]
    assert shop.sql("SELECT released_at FROM photos") == [(None,)]


def test_products_that_share_photos_in_other_orders_never_deadlock(shop: "Shop") -> None:
    letters = "abcdef"

    def accept(order: str) -> None:
        for _ in range(5):
            product, _ = shop.accept(photos=[shop.photo(letter) for letter in order])
            shop.revise(product.id, photos=[shop.photo(letter) for letter in order[::-1]])
            shop.delete(product.id)

    threads = [threading.Thread(target=accept, args=(order,)) for order in (letters, letters[::-1], "cafebd")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shop.sql("SELECT count(*), count(released_at) FROM photos") == [(6, 6)]


def revise_together(shop: "Shop", changes: Sequence[tuple[str, str]]) -> list[CatalogError]:
    """Gives each product its photo, all at once; returns what went wrong."""
    failed: list[CatalogError] = []

    def revise(product_id: str, letter: str) -> None:
        try:
            shop.revise(product_id, photos=[shop.photo(letter)])
        except CatalogError as error:
            failed.append(error)

    threads = [threading.Thread(target=revise, args=change) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_two_products_that_swap_their_photos_never_deadlock(
    shop: "Shop", monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = shop.accept(photos=[shop.photo("a")])
    second, _ = shop.accept(photos=[shop.photo("b")])
    both_let_go = threading.Barrier(2)
    release = photos.release

    def release_and_wait(*args: Any) -> list[str]:
        freed = release(*args)
        with suppress(threading.BrokenBarrierError):  # the other one waits for a row, as it should
            both_let_go.wait(1)
        return freed

    monkeypatch.setattr(photos, "release", release_and_wait)
    assert revise_together(shop, [(first.id, "b"), (second.id, "a")]) == []
    assert shop.product(first.id).photos == (shop.photo("b"),)
    assert shop.product(second.id).photos == (shop.photo("a"),)
    assert shop.sql("SELECT count(*), count(released_at) FROM photos") == [(2, 0)]


def test_a_change_locks_no_photo_that_is_being_removed(shop: "Shop", engine: Engine) -> None:
    """It waits for the removal's lock on the name first: holding the row meanwhile, it would wait in a circle."""
    product, _ = shop.accept(photos=[shop.photo("b")])
    gone, _ = shop.accept(photos=[shop.photo("a")])
    shop.delete(gone.id)
    failed: list[CatalogError] = []
    changing = threading.Thread(target=lambda: failed.extend(revise_together(shop, [(product.id, "a")])))
    with transaction(engine) as session:
        session.execute(photos._LOCK, {"id": A})
        changing.start()
        changing.join(0.3)
        assert changing.is_alive()
        session.execute(text("DELETE FROM photos WHERE id = :id"), {"id": A})
    changing.join()
    assert failed == []
    assert shop.product(product.id).photos == (shop.photo("a"),)


def test_photos_that_the_store_will_not_remove_keep_no_others(
    shop: "Shop", engine: Engine, stored: PhotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = [shop.accept(photos=[shop.photo(digit)])[0] for digit in "abcd"]
    for product in products:
        shop.delete(product.id)
    delete = stored.delete

    def refuse_two(photo_id: str) -> None:
        if photo_id[0] in "ac":
            raise StoreUnavailable("not permitted")
        delete(photo_id)

    monkeypatch.setattr(stored, "delete", refuse_two)
    assert [photos.remove_released(engine, stored, limit=2) for _ in range(2)] == [1, 1]
    assert sorted(row.id[0] for row in shop.sql("SELECT id FROM photos")) == ["a", "c"]


def test_a_store_that_refuses_again_and_again_is_asked_no_more(
    shop: "Shop", engine: Engine, stored: PhotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for digit in "0123456789abcdef":
        shop.delete(shop.accept(photos=[shop.photo(digit)])[0].id)
    asked: list[str] = []

    def refuse(photo_id: str) -> None:
        asked.append(photo_id)
        raise StoreUnavailable("no store")

    monkeypatch.setattr(stored, "delete", refuse)
    with pytest.raises(StoreUnavailable):
        photos.remove_released(engine, stored)
    assert len(asked) == photos.REFUSALS


def test_the_lock_outlives_a_store_that_takes_its_time(
    shop: "Shop", engine: Engine, stored: PhotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)
    limits: list[str] = []
    real = photos.transaction

    @contextmanager
    def watched(engine: Engine) -> Iterator[Session]:
        with real(engine) as session:
            monkeypatch.setattr(stored, "delete", lambda photo_id: limits.append(limit_of(session)))
            yield session

    monkeypatch.setattr(photos, "transaction", watched)
    assert photos.remove_released(engine, stored, free) == 1
    assert limits == ["1min"], "twice what a store is waited for"
    with real(engine) as session:
        assert limit_of(session) == "30s"


def limit_of(session: Session) -> str:
    return str(session.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one())


def test_a_removal_begins_with_no_photo_after_its_time(
    shop: "Shop", engine: Engine, stored: PhotoStore
) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    free = shop.delete(product.id)
    assert photos.remove_released(engine, stored, free, within_s=-1) == 0
    assert photos.remove_released(engine, stored, free) == 1
