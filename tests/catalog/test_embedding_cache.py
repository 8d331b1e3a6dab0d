"""What `tests/workers` shows of these tables by way of a worker is not shown here once more."""

from typing import TYPE_CHECKING

from sqlalchemy import text

from catalog.database import transaction
from catalog.embedding_cache import TEXTS

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def test_the_oldest_go_first_and_no_more_at_once_than_the_limit(shop: "Shop") -> None:
    """However many there are after a setting was changed: a statement may not take long."""
    ages = {f"text {days}": days for days in (29, 31, 32, 33)}
    with transaction(shop.engine) as session:
        TEXTS.remember(session, {(shop.tenant, name, "v"): b"" for name in ages})
    for name, days in ages.items():
        aged = (
            "UPDATE text_embeddings SET created_at = now() - :days * interval '1 day' WHERE text_id = :name"
        )
        shop.sql(aged, days=days, name=name)
    left = []
    for _ in range(3):
        with transaction(shop.engine) as session:
            for way in ("indexscan", "bitmapscan"):  # an order that only an index gave is none
                session.execute(text(f"SET LOCAL enable_{way} = off"))
            TEXTS.prune(session, 30, 2)
        left.append([row.text_id for row in shop.sql("SELECT text_id FROM text_embeddings ORDER BY 1")])
    assert left == [["text 29", "text 31"], ["text 29"], ["text 29"]]
