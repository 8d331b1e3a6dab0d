"""What the model made of a text is remembered for the tenant's next job with the same text, and forgotten in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from catalog.database import transaction
from catalog.embedding_cache import TEXTS, text_id
from catalog.sweep import sweep
from workers.served import Remembered

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Desk


def rows(desk: Desk) -> list[tuple[str, str, bytes]]:
    with transaction(desk.engine) as session:
        found = session.execute(
            text(
                "SELECT text_id, model_version, embedding FROM text_embeddings ORDER BY embedding, model_version"
            )
        )
        return [(row[0], row[1], bytes(row[2])) for row in found]


def texts_counted(desk: Desk) -> dict[str, float | None]:
    value = desk.metrics.registry.get_sample_value
    return {kind: value("tagsmith_worker_texts_total", {"embedding": kind}) for kind in ("new", "remembered")}


def test_a_text_is_known_by_what_the_model_reads_of_it() -> None:
    assert text_id(" red ", "") == text_id("red", " ")
    assert text_id("red", "") != text_id("", "red")
    assert text_id(" ", "") is None


def test_new_photos_beside_the_same_text_run_no_text_again(desk: Desk) -> None:
    job_id = desk.accept("red", photos=[desk.store_photo("a", b"first")])
    desk.run(job_id)
    assert rows(desk) == [(text_id("red", ""), "1:fp32", b"red")]
    shown = desk.show(job_id, [desk.store_photo("b", b"second")])
    desk.run(shown)
    assert desk.tags(shown) == ["red"]
    assert desk.runtime.texts == [None, Remembered(b"red")]
    assert texts_counted(desk) == {"new": 1, "remembered": 1}


def test_equal_texts_of_one_message_are_remembered_once_and_help_the_next(desk: Desk) -> None:
    jobs = [desk.accept("red", lane="bulk") for _ in range(3)]
    desk.run(*jobs, lane="bulk")
    assert len(rows(desk)) == 1
    desk.run(desk.accept("red"))
    assert desk.runtime.texts == [None, None, None, Remembered(b"red")]


def test_a_product_without_a_text_has_nothing_to_remember(desk: Desk) -> None:
    desk.run(desk.accept("", photos=[desk.store_photo("a", b"first")]))
    assert rows(desk) == []
    assert texts_counted(desk) == {"new": None, "remembered": None}


def test_another_checkpoint_reads_the_text_for_itself(desk: Desk) -> None:
    desk.run(desk.accept("red"))
    desk.runtime.version = "2"
    desk.run(desk.accept("red"))
    assert desk.runtime.texts == [None, None]
    assert [version for _, version, _ in rows(desk)] == ["1:fp32", "2:fp32"]


def test_a_tenant_is_remembered_for_alone(desk: Desk, make_tenant: Callable[[str], str]) -> None:
    desk.run(desk.accept("red"))
    desk.tenant = make_tenant("another")
    desk.run(desk.accept("red"))
    assert desk.runtime.texts == [None, None]
    assert len(rows(desk)) == 2


def test_a_tenant_is_remembered_for_alone_also_beside_another_in_one_message(
    desk: Desk, make_tenant: Callable[[str], str]
) -> None:
    desk.run(desk.accept("red"))
    first, own = desk.tenant, desk.accept("red", lane="bulk")
    desk.tenant = make_tenant("another")
    desk.run(own, desk.accept("red", lane="bulk"), lane="bulk")
    assert desk.runtime.texts[0] is None
    assert set(desk.runtime.texts[1:]) == {Remembered(b"red"), None}
    asked = (first, text_id("red", "") or "")
    with transaction(desk.engine) as session:
        assert set(TEXTS.recall(session, [asked], "1:fp32", 30)) == {asked}


def test_the_sweep_forgets_what_is_too_old(desk: Desk) -> None:
    desk.run(*(desk.accept(title, lane="bulk") for title in ("a", "b")), lane="bulk")
    with transaction(desk.engine) as session:
        session.execute(
            text("UPDATE text_embeddings SET created_at = now() - interval '31 days' WHERE embedding = 'a'")
        )
    desk.run(desk.accept("a"))
    assert desk.runtime.texts[-1] is None, "too old to be used, although the sweep has not come yet"
    assert sweep(desk.engine, lambda ids, lane: None, lambda lane: 0, desk.settings).embeddings_pruned == 1
    assert [embedding for _, _, embedding in rows(desk)] == [b"b"]


def test_a_cache_of_no_days_remembers_nothing(desk: Desk) -> None:
    desk.use_settings(embedding_cache_days=0)
    desk.run(desk.accept("red"))
    desk.run(desk.accept("red"))
    assert desk.runtime.texts == [None, None]
    assert rows(desk) == []
