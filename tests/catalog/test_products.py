import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from catalog import products
from catalog.database import transaction
from catalog.errors import EmptyProduct, InvalidCursor, NotFound, QueueFull
from catalog.views import DELETED, SUPERSEDED, ProductView

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def page(shop: "Shop", limit: int, cursor: str | None = None) -> tuple[list[ProductView], str | None]:
    with transaction(shop.engine) as session:
        return products.list_products(session, shop.tenant, limit, cursor)


def test_what_accept_returns_is_what_was_stored(shop: "Shop") -> None:
    product, job = shop.accept("A shirt", [shop.photo("c"), shop.photo("a")])
    assert shop.product(product.id) == product
    assert shop.job(job.id) == job
    assert (job.status, job.attempts, job.product_id) == ("queued", 0, product.id)
    assert product.job_id == job.id
    assert product.id.startswith("prd_")
    assert job.id.startswith("job_")


def test_a_product_needs_a_title_or_a_photo(shop: "Shop") -> None:
    with pytest.raises(EmptyProduct):
        shop.accept("  ")
    assert shop.accept("", [shop.photo("a")])[0].title == ""
    assert shop.sql("SELECT count(*) FROM products")[0][0] == 1


def test_a_refused_acceptance_stores_nothing(shop: "Shop") -> None:
    full = shop.with_settings(max_queued_interactive=0)
    with pytest.raises(QueueFull):
        full.accept(photos=[shop.photo("a")])
    for table in ("products", "jobs", "photos", "product_photos"):
        assert shop.sql(f"SELECT count(*) FROM {table}")[0][0] == 0


def test_a_change_makes_a_new_job_and_cancels_the_one_still_queued(shop: "Shop") -> None:
    product, old = shop.accept("Old", [shop.photo("a")])
    changed, new = shop.revise(product.id, title="New")
    assert (changed.title, changed.photos, changed.job_id) == ("New", (shop.photo("a"),), new.id)
    assert changed.updated_at > changed.created_at
    superseded = shop.job(old.id)
    assert (superseded.status, superseded.error) == ("cancelled", SUPERSEDED)
    assert shop.claim_one(new.id).title == "New"


def test_two_changes_at_once_make_two_revisions(shop: "Shop", engine: Engine) -> None:
    product, _ = shop.accept("Title")
    second = threading.Thread(target=lambda: shop.revise(product.id, description="Words"))
    with transaction(engine) as session:
        products.revise(
            session, shop.tenant, product.id, title="New", lane="interactive", settings=shop.settings
        )
        second.start()
        second.join(0.3)
        assert second.is_alive()
    second.join()
    assert [row.revision for row in shop.sql("SELECT revision FROM jobs ORDER BY id")] == [1, 2, 3]
    assert shop.sql("SELECT title, description, revision FROM products") == [("New", "Words", 3)]


def test_a_change_leaves_alone_what_it_does_not_name(shop: "Shop") -> None:
    product, _ = shop.accept("Title", [shop.photo("a")])
    shop.revise(product.id, description="Words")
    changed, _ = shop.revise(product.id, photos=[shop.photo("b"), shop.photo("a")])
    assert (changed.title, changed.description, changed.external_id) == ("Title", "Words", None)
    assert [photo.id[0] for photo in changed.photos] == ["b", "a"]
    assert shop.product(product.id) == changed


def test_a_change_may_not_leave_a_product_with_neither_title_nor_photo(shop: "Shop") -> None:
    product, job = shop.accept("Title", [shop.photo("a")])
    shop.revise(product.id, title="  ")
    with pytest.raises(EmptyProduct):
        shop.revise(product.id, photos=[])
    assert shop.product(product.id).photos == (shop.photo("a"),)
    assert shop.job(job.id).status == "cancelled"


def test_a_slow_job_of_an_older_revision_does_not_overwrite_newer_tags(shop: "Shop") -> None:
    product, old = shop.accept("Old")
    slow = shop.claim_one(old.id)
    _, new = shop.revise(product.id, title="New")
    assert shop.finish(shop.claim_one(new.id), "new")
    assert shop.finish(slow, "old")
    assert [tag.value for tag in shop.product(product.id).tags or ()] == ["new", "new"]
    assert [tag.value for tag in shop.job(old.id).tags or ()] == ["old", "old"]


def test_an_older_job_that_ends_first_is_followed_by_the_newer_one(shop: "Shop") -> None:
    product, old = shop.accept("Old")
    slow = shop.claim_one(old.id)
    _, new = shop.revise(product.id, title="New")
    assert shop.finish(slow, "old")
    assert [tag.value for tag in shop.product(product.id).tags or ()] == ["old", "old"]
    assert shop.finish(shop.claim_one(new.id), "new")
    assert [tag.value for tag in shop.product(product.id).tags or ()] == ["new", "new"]


def test_two_revisions_finished_in_one_batch_leave_the_tags_of_the_newer(
    shop: "Shop", engine: Engine
) -> None:
    from catalog import jobs

    product, old = shop.accept("Old")
    claimed_old = shop.claim_one(old.id)
    _, new = shop.revise(product.id, title="New")
    claimed_new = shop.claim_one(new.id)
    batch = [
        jobs.Finished(claimed_new, shop.tags("new"), [1.0], "m", "v"),
        jobs.Finished(claimed_old, shop.tags("old"), [2.0], "m", "v"),
    ]
    with transaction(engine) as session:
        assert jobs.finish(session, batch) == {old.id, new.id}
    assert [tag.value for tag in shop.product(product.id).tags or ()] == ["new", "new"]


def test_a_superseded_job_that_is_put_back_is_cancelled_instead(shop: "Shop") -> None:
    product, old = shop.accept("Old")
    claimed = shop.claim_one(old.id)
    shop.revise(product.id, title="New")
    assert shop.put_back(claimed)
    assert shop.job(old.id).status == "cancelled"


def test_a_superseded_job_whose_lease_lapsed_never_runs_with_newer_content(shop: "Shop") -> None:
    product, old = shop.accept("Old")
    shop.claim_one(old.id)
    shop.revise(product.id, title="New")
    shop.let_lease_lapse(old.id)
    assert shop.claim(old.id) == []
    assert (shop.job(old.id).status, shop.job(old.id).error) == ("cancelled", SUPERSEDED)


def test_old_tags_stay_visible_until_the_new_ones_are_there(shop: "Shop") -> None:
    product, job = shop.accept("Old")
    shop.finish(shop.claim_one(job.id), "old")
    changed, new = shop.revise(product.id, title="New")
    assert [tag.value for tag in changed.tags or ()] == ["old", "old"]
    shop.fail(shop.claim_one(new.id))
    assert [tag.value for tag in shop.product(product.id).tags or ()] == ["old", "old"]


def test_a_deleted_product_takes_its_tags_embedding_and_photos_along(shop: "Shop") -> None:
    product, job = shop.accept(photos=[shop.photo("b"), shop.photo("a"), shop.photo("b")])
    shop.finish(shop.claim_one(job.id), embedding=[1.0, 2.0])
    assert shop.delete(product.id) == ["a" * 64, "b" * 64]
    with pytest.raises(NotFound):
        shop.product(product.id)
    for table in ("products", "product_photos", "tags", "embeddings"):
        assert shop.sql(f"SELECT count(*) FROM {table}")[0][0] == 0
    left = shop.job(job.id)
    assert (left.status, left.product_id, left.tags) == ("succeeded", product.id, ())


def test_a_photo_that_another_product_holds_is_not_given_free(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    mine, _ = shop.accept(photos=[shop.photo("a"), shop.photo("b"), shop.photo("c")])
    shop.accept(photos=[shop.photo("a")])
    shop.of(make_tenant("another")).accept(photos=[shop.photo("b")])
    assert shop.delete(mine.id) == ["c" * 64]


def test_a_photo_is_free_once_its_last_holder_in_any_tenant_is_gone(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    other = shop.of(make_tenant("another"))
    mine, _ = shop.accept(photos=[shop.photo("a")])
    theirs, _ = other.accept(photos=[shop.photo("a")])
    assert shop.delete(mine.id) == []
    assert other.delete(theirs.id) == ["a" * 64]


def test_a_deletion_leaves_alone_what_another_tenant_let_go_of(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    """Else each deletion of one tenant would keep the photo of another for longer, and wait for its changes."""
    other = shop.of(make_tenant("another"))
    for one in (other, shop):
        product, _ = one.accept(photos=[shop.photo("a")])
        one.delete(product.id)
        shop.sql("UPDATE photos SET released_at = now() - interval '1 day' WHERE id = :id", id="a" * 64)
    product, _ = shop.accept(photos=[shop.photo("a")])
    shop.delete(product.id)
    released = "SELECT now() - released_at < interval '1 hour' FROM photos WHERE tenant_id = :id"
    assert shop.sql(released, id=shop.tenant) == [(True,)]
    assert shop.sql(released, id=other.tenant) == [(False,)]


def test_deleting_a_product_cancels_its_live_jobs_and_their_workers_write_nothing(shop: "Shop") -> None:
    product, running = shop.accept()
    claimed = shop.claim_one(running.id)
    _, queued = shop.revise(product.id, title="New")
    shop.delete(product.id)
    for job in (running, queued):
        assert (shop.job(job.id).status, shop.job(job.id).error) == ("cancelled", DELETED)
    assert shop.finish(claimed) is False
    assert shop.claim(queued.id) == []
    assert shop.sql("SELECT count(*) FROM tags")[0][0] == 0


def test_two_tenants_with_the_same_photo_see_it_once_each(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    other = shop.of(make_tenant("another"))
    mine, _ = shop.accept(photos=[shop.photo("a")])
    theirs, _ = other.accept(photos=[replace(shop.photo("a"), width=99)])
    assert shop.product(mine.id).photos == (shop.photo("a"),)
    changed, _ = other.revise(theirs.id, photos=[shop.photo("b")])
    assert changed.photos == (shop.photo("b"),)
    assert shop.product(mine.id).photos == (shop.photo("a"),)


def test_another_tenants_product_does_not_exist(shop: "Shop", make_tenant: Callable[[str], str]) -> None:
    product, _ = shop.accept()
    stranger = shop.of(make_tenant("a stranger"))
    with pytest.raises(NotFound):
        stranger.product(product.id)
    with pytest.raises(NotFound):
        stranger.revise(product.id, title="Mine now")
    with pytest.raises(NotFound):
        stranger.delete(product.id)
    assert page(stranger, 10) == ([], None)
    assert shop.product(product.id) == product


def test_pages_give_every_product_once_newest_first_whatever_is_added_meanwhile(shop: "Shop") -> None:
    there = [shop.accept(f"Product {number}", [shop.photo("a")])[0] for number in range(7)]
    seen: list[ProductView] = []
    cursor = None
    for expected in (3, 3, 1):
        views, cursor = page(shop, 3, cursor)
        assert len(views) == expected
        seen += views
        shop.accept("Added between two pages")
    assert cursor is None
    assert seen == there[::-1]


def test_deleting_the_product_a_cursor_points_at_breaks_no_page(shop: "Shop") -> None:
    there = [shop.accept(f"Product {number}")[0].id for number in range(5)]
    first, cursor = page(shop, 2)
    shop.delete(first[-1].id)
    rest, _ = page(shop, 10, cursor)
    assert [view.id for view in rest] == there[2::-1]


def test_a_page_that_is_exactly_full_has_no_next(shop: "Shop") -> None:
    for _ in range(2):
        shop.accept()
    views, cursor = page(shop, 2)
    assert (len(views), cursor) == (2, None)


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "am9iXzE", "////", "é", "a" * 5000, "AAAA"])
def test_a_cursor_that_is_not_ours_is_refused(shop: "Shop", cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        page(shop, 2, cursor)


def test_a_page_shows_each_products_own_tags_and_photos(shop: "Shop") -> None:
    for letter in "abc":
        _, job = shop.accept(letter, [shop.photo(letter)])
        if letter != "b":
            shop.finish(shop.claim_one(job.id), letter)
    views, _ = page(shop, 10)
    shown = {
        view.title: (view.photos[0].id[0], view.tags and {tag.value for tag in view.tags}) for view in views
    }
    assert shown == {"a": ("a", {"a"}), "b": ("b", None), "c": ("c", {"c"})}
