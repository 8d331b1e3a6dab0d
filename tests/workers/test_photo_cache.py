"""What the model made of a photo is remembered for the tenant's next job, and forgotten in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from catalog.database import transaction
from catalog.photos import remove_released
from catalog.products import delete_product
from catalog.sweep import sweep
from workers.served import Remembered

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Desk


def rows(desk: Desk) -> list[tuple[str, str, str]]:
    with transaction(desk.engine) as session:
        found = session.execute(
            text("SELECT tenant_id, left(photo_id, 1), model_version FROM photo_embeddings ORDER BY 1, 2, 3")
        )
        return [(row[0], row[1], row[2]) for row in found]


def photos_counted(desk: Desk) -> dict[str, float | None]:
    value = desk.metrics.registry.get_sample_value
    return {
        kind: value("tagsmith_worker_photos_total", {"embedding": kind}) for kind in ("new", "remembered")
    }


def test_an_edited_title_reads_and_runs_no_photo_again(desk: Desk) -> None:
    photos = [desk.store_photo("b", b"second"), desk.store_photo("a", b"first")]
    job_id = desk.accept("red", photos=photos)
    desk.run(job_id)
    assert rows(desk) == [(desk.tenant, "a", "1:fp32"), (desk.tenant, "b", "1:fp32")]
    for photo in photos:
        desk.photo_store.delete(photo.id)
    edited = desk.edit(job_id, "blue")
    desk.run(edited)
    assert desk.tags(edited) == ["blue"]
    assert desk.runtime.photos[-1] == (Remembered(b"second"), Remembered(b"first"))
    assert photos_counted(desk) == {"new": 2, "remembered": 2}


def test_a_message_reads_and_writes_the_embeddings_of_all_its_jobs_at_once(desk: Desk) -> None:
    statements: list[str] = []

    def listen(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "photo_embeddings" in statement:
            statements.append(" ".join(statement.split())[:6])

    first = desk.accept("0", photos=[desk.store_photo("0", b"photo 0")])
    desk.run(first)
    event.listen(desk.engine, "before_cursor_execute", listen)
    jobs = [
        desk.accept(str(n), photos=[desk.store_photo(str(n), b"photo %d" % n)], lane="bulk") for n in range(9)
    ]
    desk.run(*jobs, lane="bulk")
    assert [desk.tags(job_id) for job_id in jobs] == [[str(n)] for n in range(9)]
    assert statements == ["SELECT", "WITH g"]
    assert photos_counted(desk) == {"new": 9, "remembered": 1}
    assert len(rows(desk)) == 9


@pytest.mark.parametrize(
    ("changed", "value", "features"), [("version", "2", "2:fp32"), ("precision", "bf16", "1:bf16")]
)
def test_another_checkpoint_or_precision_sees_the_photos_for_itself(
    desk: Desk, changed: str, value: str, features: str
) -> None:
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])
    desk.run(job_id)
    setattr(desk.runtime, changed, value)
    desk.run(desk.edit(job_id, "blue"))
    assert desk.runtime.photos[-1] == (b"first",)
    assert sorted(rows(desk)) == sorted([(desk.tenant, "a", "1:fp32"), (desk.tenant, "a", features)])
    assert desk.job(job_id).model_version == "1"


def test_a_tenant_is_remembered_for_alone(desk: Desk, make_tenant: Callable[[str], str]) -> None:
    photo = desk.store_photo("a", b"first")
    desk.run(desk.accept("red", photos=[photo]))
    desk.tenant = make_tenant("another")
    desk.run(desk.accept("blue", photos=[photo]))
    assert desk.runtime.photos == [(b"first",), (b"first",)]
    assert len(rows(desk)) == 2


def test_a_tenant_is_remembered_for_alone_also_beside_another_in_one_message(
    desk: Desk, make_tenant: Callable[[str], str]
) -> None:
    photo = desk.store_photo("a", b"first")
    desk.run(desk.accept("red", photos=[photo]))
    own = desk.accept("green", photos=[photo], lane="bulk")
    desk.tenant = make_tenant("another")
    desk.run(own, desk.accept("blue", photos=[photo], lane="bulk"), lane="bulk")
    assert set(desk.runtime.photos[1:]) == {(Remembered(b"first"),), (b"first",)}


def test_each_tenant_of_a_message_has_what_was_remembered_for_it(
    desk: Desk, make_tenant: Callable[[str], str]
) -> None:
    tenants = {
        desk.tenant: desk.store_photo("a", b"first"),
        make_tenant("another"): desk.store_photo("b", b"second"),
    }
    for title in ("red", "blue"):
        jobs = []
        for desk.tenant, photo in tenants.items():
            jobs.append(desk.accept(f"{title} {photo.id}", photos=[photo], lane="bulk"))
        desk.run(*jobs, lane="bulk")
    assert set(desk.runtime.photos[2:]) == {(Remembered(b"first"),), (Remembered(b"second"),)}


def test_what_was_remembered_goes_with_the_product(desk: Desk) -> None:
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])
    desk.run(job_id)
    with transaction(desk.engine) as session:
        freed = delete_product(session, desk.tenant, desk.job(job_id).product_id)
    remove_released(desk.engine, desk.photo_store, freed)
    assert rows(desk) == []


def test_a_photo_that_went_while_its_job_ran_is_not_remembered(desk: Desk) -> None:
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])

    def lose_the_photo(titles: list[str]) -> None:
        with transaction(desk.engine) as session:
            session.execute(text("DELETE FROM product_photos"))
            session.execute(text("DELETE FROM photos"))

    desk.runtime.on_forward = lose_the_photo
    desk.run(job_id)
    assert desk.tags(job_id) == ["red"]
    assert rows(desk) == []


def test_a_photo_that_is_being_taken_away_holds_nothing_up(desk: Desk) -> None:
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])
    with desk.engine.connect() as other:
        other.execute(text("SELECT 1 FROM photos FOR UPDATE"))
        desk.run(job_id)
        other.rollback()
    assert desk.tags(job_id) == ["red"]
    assert rows(desk) == []


def test_features_that_cannot_be_remembered_are_not(desk: Desk) -> None:
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])

    def overflow(titles: list[str]) -> None:
        desk.runtime.new["red"] = (None,)  # type: ignore[assignment]

    desk.runtime.on_forward = overflow
    desk.run(job_id)
    assert (desk.tags(job_id), rows(desk)) == (["red"], [])


def test_the_sweep_forgets_what_is_too_old(desk: Desk) -> None:
    jobs = [
        desk.accept(name, photos=[desk.store_photo(name, name.encode())], lane="bulk") for name in ("a", "b")
    ]
    desk.run(*jobs, lane="bulk")
    with transaction(desk.engine) as session:
        session.execute(
            text(
                "UPDATE photo_embeddings SET created_at = now() - interval '31 days' WHERE photo_id LIKE 'a%'"
            )
        )
    desk.run(desk.edit(jobs[0], "c"))
    assert desk.runtime.photos[-1] == (b"a",), "too old to be used, although the sweep has not come yet"
    assert sweep(desk.engine, lambda ids, lane: None, lambda lane: 0, desk.settings).embeddings_pruned == 1
    assert [photo for _, photo, _ in rows(desk)] == ["b"]


def test_a_cache_of_no_days_remembers_nothing(desk: Desk) -> None:
    desk.use_settings(embedding_cache_days=0)
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])
    desk.run(job_id)
    desk.run(desk.edit(job_id, "blue"))
    assert desk.runtime.photos == [(b"first",), (b"first",)]
    assert rows(desk) == []
