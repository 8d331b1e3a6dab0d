import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

from catalog import idempotency, products
from catalog.database import transaction
from catalog.errors import IdempotencyError, IdempotencyInProgress, IdempotencyMismatch
from catalog.idempotency import IdempotencyKey, StoredAnswer

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def key_of(shop: "Shop", key: str = "key-1", fingerprint: str = "one payload") -> IdempotencyKey:
    return IdempotencyKey(shop.tenant, key, fingerprint)


def begin(shop: "Shop", key: IdempotencyKey) -> StoredAnswer | None:
    with transaction(shop.engine) as session:
        return idempotency.begin(session, key, shop.settings)


def accept_and_answer(shop: "Shop", key: IdempotencyKey, body: str = '{"é": 1}') -> None:
    with transaction(shop.engine) as session:
        products.accept(
            session,
            tenant_id=shop.tenant,
            title="A shirt",
            description="",
            external_id=None,
            photos=[],
            lane="interactive",
            idempotency=key,
            settings=shop.settings,
        )
        idempotency.complete(session, key, 202, {"Location": "/v1/jobs/x"}, body)


def accepted(shop: "Shop") -> int:
    return int(shop.sql("SELECT count(*) FROM products")[0][0])


def test_a_repetition_gets_the_first_answer_verbatim(shop: "Shop") -> None:
    key = key_of(shop)
    assert begin(shop, key) is None
    accept_and_answer(shop, key)
    again = begin(shop, key_of(shop))
    assert again == StoredAnswer(202, {"Location": "/v1/jobs/x"}, '{"é": 1}')
    assert accepted(shop) == 1


def test_an_answer_stands_long_after_the_lock_of_its_request(shop: "Shop") -> None:
    key = key_of(shop)
    begin(shop, key)
    accept_and_answer(shop, key)
    shop.sql("UPDATE idempotency_records SET locked_until = now() - interval '1 hour'")
    assert begin(shop, key_of(shop)) is not None


def test_a_key_is_remembered_for_longer_than_it_is_locked(shop: "Shop") -> None:
    begin(shop, key_of(shop))
    settings = shop.settings
    assert shop.sql(
        "SELECT extract(epoch FROM expires_at - locked_until)::float8 FROM idempotency_records"
    ) == [(settings.idempotency_ttl_s - settings.idempotency_lock_s,)]


def test_the_same_key_with_another_payload_is_refused_before_and_after_the_answer(shop: "Shop") -> None:
    key = key_of(shop)
    begin(shop, key)
    for _ in range(2):
        with pytest.raises(IdempotencyMismatch):
            begin(shop, key_of(shop, fingerprint="another payload"))
        if accepted(shop) == 0:
            accept_and_answer(shop, key)


def test_a_twin_of_a_request_that_still_runs_is_refused(shop: "Shop") -> None:
    begin(shop, key_of(shop))
    with pytest.raises(IdempotencyInProgress):
        begin(shop, key_of(shop))


def test_of_ten_twins_at_once_exactly_one_runs(shop: "Shop") -> None:
    gate = threading.Barrier(10)
    outcomes: list[Any] = []

    def request() -> None:
        key = key_of(shop)
        gate.wait()
        try:
            begin(shop, key)
            accept_and_answer(shop, key)
            outcomes.append("accepted")
        except IdempotencyError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=request) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted(shop) == 1
    assert outcomes.count("accepted") == 1
    assert set(outcomes) <= {"accepted", IdempotencyInProgress}


def test_a_key_that_is_released_while_its_twin_looks_for_the_answer_is_asked_for_again(
    shop: "Shop", monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(shop, key_of(shop))
    monkeypatch.setattr(idempotency, "_FIND", text(f"{idempotency._FIND} AND false"))
    with pytest.raises(IdempotencyInProgress):
        begin(shop, key_of(shop))


def test_a_released_key_can_be_used_for_the_mended_request(shop: "Shop") -> None:
    key = key_of(shop)
    begin(shop, key)
    with transaction(shop.engine) as session:
        idempotency.release(session, key)
    assert begin(shop, key_of(shop, fingerprint="mended")) is None


def test_releasing_takes_nothing_from_a_twin_and_nothing_that_is_answered(shop: "Shop") -> None:
    key = key_of(shop)
    begin(shop, key)
    with transaction(shop.engine) as session:
        idempotency.release(session, key_of(shop))
    accept_and_answer(shop, key)
    with transaction(shop.engine) as session:
        idempotency.release(session, key)
    assert begin(shop, key_of(shop)) is not None


@pytest.mark.parametrize("since", ["0 s", "-1 hour"], ids=["in time", "after the clock was set back"])
def test_a_key_of_a_request_that_died_is_free_after_its_lock(shop: "Shop", since: str) -> None:
    begin(shop, key_of(shop))
    shop.sql("UPDATE idempotency_records SET locked_until = now() - CAST(:since AS interval)", since=since)
    with pytest.raises(IdempotencyMismatch):
        begin(shop, key_of(shop, fingerprint="another payload"))
    assert begin(shop, key_of(shop)) is None
    with pytest.raises(IdempotencyInProgress):
        begin(shop, key_of(shop))


def test_a_request_so_slow_that_a_twin_took_its_key_stores_nothing(shop: "Shop") -> None:
    slow, twin = key_of(shop), key_of(shop)
    begin(shop, slow)
    shop.sql("UPDATE idempotency_records SET locked_until = now()")
    begin(shop, twin)
    with pytest.raises(IdempotencyInProgress):
        accept_and_answer(shop, slow)
    assert accepted(shop) == 0
    accept_and_answer(shop, twin)
    with pytest.raises(IdempotencyInProgress):
        accept_and_answer(shop, slow)
    assert accepted(shop) == 1


def test_a_crash_before_the_commit_leaves_neither_product_nor_answer(shop: "Shop", engine: Engine) -> None:
    key = key_of(shop)
    begin(shop, key)

    def crash() -> None:
        with transaction(engine) as session:
            idempotency.complete(session, key, 202, {}, "")
            raise RuntimeError("killed before the commit")

    with pytest.raises(RuntimeError, match="killed"):
        crash()
    assert shop.sql("SELECT status FROM idempotency_records") == [(None,)]


def test_an_expired_key_is_as_good_as_new(shop: "Shop") -> None:
    key = key_of(shop)
    begin(shop, key)
    accept_and_answer(shop, key)
    shop.sql("UPDATE idempotency_records SET expires_at = now()")
    anew = key_of(shop, fingerprint="another payload")
    assert begin(shop, anew) is None
    accept_and_answer(shop, anew, "the second answer")
    again = begin(shop, key_of(shop, fingerprint="another payload"))
    assert again is not None and again.body == "the second answer"


def test_two_tenants_may_use_the_same_key(shop: "Shop", make_tenant: Any) -> None:
    begin(shop, key_of(shop))
    other = shop.of(make_tenant("another"))
    their_key = key_of(other, fingerprint="another payload")
    assert begin(other, their_key) is None
    accept_and_answer(other, their_key, "theirs")
    with pytest.raises(IdempotencyInProgress):
        begin(shop, key_of(shop))
    again = begin(other, key_of(other, fingerprint="another payload"))
    assert again is not None and again.body == "theirs"


def test_what_expires_of_one_tenant_is_remembered_of_another(shop: "Shop", make_tenant: Any) -> None:
    other = shop.of(make_tenant("another"))
    for one in (shop, other):
        key = key_of(one)
        begin(one, key)
        accept_and_answer(one, key)
    shop.sql("UPDATE idempotency_records SET expires_at = now() WHERE tenant_id = :id", id=shop.tenant)
    with transaction(shop.engine) as session:
        assert idempotency.prune(session, 10) == 1
    assert begin(other, key_of(other)) is not None


def test_the_parts_of_a_fingerprint_cannot_flow_into_each_other() -> None:
    assert idempotency.fingerprint([b"ab", b"c"]) != idempotency.fingerprint([b"a", b"bc"])
    assert idempotency.fingerprint([b"ab"]) != idempotency.fingerprint([b"ab", b""])
    assert idempotency.fingerprint([b"ab", b"c"]) == idempotency.fingerprint(iter([b"ab", b"c"]))


def test_no_more_records_go_at_once_than_the_limit(shop: "Shop") -> None:
    """However many have expired since the last time: a statement may not take long."""
    for number in range(3):
        begin(shop, IdempotencyKey(shop.tenant, f"key {number}", "same"))
    shop.sql("UPDATE idempotency_records SET expires_at = now()")
    pruned = []
    for _ in range(3):
        with transaction(shop.engine) as session:
            pruned.append(idempotency.prune(session, 2))
    assert pruned == [2, 1, 0]
