import hashlib
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from catalog import tenants
from catalog.database import transaction


def test_a_key_finds_its_tenant(engine: Engine, tenant: str, api_key: str) -> None:
    with transaction(engine) as session:
        assert tenants.authenticate(session, api_key) == tenant


@pytest.mark.parametrize("wrong", ["", "tsk_", "tsk_nothing", "x" * 10_000, "tsk_\x00"])
def test_a_wrong_key_finds_nobody(engine: Engine, api_key: str, wrong: str) -> None:
    with transaction(engine) as session:
        assert tenants.authenticate(session, wrong) is None
        assert tenants.authenticate(session, api_key + wrong + "x") is None


def test_only_the_hash_of_a_key_is_stored(engine: Engine, api_key: str) -> None:
    with transaction(engine) as session:
        rows = session.execute(text("SELECT * FROM api_keys")).all()
    assert api_key.startswith("tsk_")
    assert [row.hash for row in rows] == [hashlib.sha256(api_key.encode()).hexdigest()]
    assert api_key not in str(rows)


def test_every_key_is_different_and_long(engine: Engine, tenant: str) -> None:
    with transaction(engine) as session:
        keys = {tenants.create_api_key(session, tenant, "") for _ in range(20)}
    assert len(keys) == 20
    assert min(map(len, keys)) >= 40


def test_making_a_tenant_again_finds_the_first(engine: Engine) -> None:
    ids = set()
    for name in ("acme", "acme", "other"):
        with transaction(engine) as session:
            ids.add((name, tenants.create_tenant(session, name).id))
    assert len(ids) == 2


def test_keys_are_listed_by_their_tenant_the_oldest_first(
    engine: Engine, make_tenant: Callable[[str], str]
) -> None:
    one, two = make_tenant("one"), make_tenant("two")
    for tenant, name in ((one, "third"), (two, "second"), (one, "first")):
        with transaction(engine) as session:
            tenants.create_api_key(session, tenant, name)
    ages = {"first": 3, "second": 2, "third": 1}
    with transaction(engine) as session:
        for name, hours in ages.items():
            session.execute(
                text("UPDATE api_keys SET created_at = now() - :h * interval '1 hour' WHERE name = :name"),
                {"h": hours, "name": name},
            )
    with transaction(engine) as session:
        assert [key.name for key in tenants.api_keys(session)] == ["first", "second", "third"]
        assert [(key.tenant, key.name) for key in tenants.api_keys(session, "one")] == [
            ("one", "first"),
            ("one", "third"),
        ]


def test_a_part_of_an_id_revokes_nothing(engine: Engine, api_key: str) -> None:
    key_id = tenants.hash_key(api_key)[: tenants.ID_DIGITS]
    with transaction(engine) as session:
        for part in (key_id[:8], key_id[:-1], "", key_id + "0"):
            assert not tenants.revoke_api_key(session, part)
        assert tenants.authenticate(session, api_key)
