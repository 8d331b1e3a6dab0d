import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine, event, inspect, make_url, text

from catalog import database, embedding_cache
from catalog.database import make_engine, migrate, newest_revision, without_time_limits
from catalog.errors import DatabaseUnavailable, NotMigrated, SchemaOutdated
from catalog.settings import Settings
from catalog.tables import Base
from catalog.tenants import create_tenant
from tests.conftest import another_database


def test_the_migrations_make_the_tables_the_code_describes(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_migrations_make_every_check_constraint(engine: Engine) -> None:
    database = inspect(engine)
    for table in Base.metadata.sorted_tables:
        described = {
            constraint.name for constraint in table.constraints if isinstance(constraint, CheckConstraint)
        }
        assert {found["name"] for found in database.get_check_constraints(table.name)} == described


def test_starters_that_migrate_an_empty_database_at_once_do_it_one_after_the_other(
    engine: Engine, settings: Settings
) -> None:
    with another_database(engine, settings) as elsewhere:
        engines = [make_engine(elsewhere) for _ in range(4)]
        with ThreadPoolExecutor(4) as starters:
            list(starters.map(migrate, engines))
        assert inspect(engines[0]).has_table("jobs")
        for each in engines:
            each.dispose()


def test_writes_go_on_while_a_migration_builds_an_index(engine: Engine, settings: Settings) -> None:
    """A write that is open keeps an index from being ready; no other write may have to wait for that."""
    insert = text(
        "INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at) "
        "VALUES (:id, 'ten', 'prd', 1, 'bulk', now())"
    )
    statements: list[str] = []
    with another_database(engine, settings) as url:
        migrating, writing = make_engine(url), make_engine(url)
        event.listen(migrating, "before_cursor_execute", lambda *given: statements.append(given[2]))
        upgrade(migrating, "0001")
        statements.clear()
        with writing.begin() as connection:
            connection.execute(text("INSERT INTO tenants (id, name) VALUES ('ten', 'a tenant')"))
        with ThreadPoolExecutor(1) as starter:
            with writing.begin() as open_write:
                open_write.execute(insert, {"id": "open"})
                migration = starter.submit(migrate, migrating)
                with writing.connect() as watching:
                    while not watching.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted")).first():
                        assert not migration.done()
                        watching.rollback()
                with writing.begin() as another_write:
                    another_write.execute(text("SET lock_timeout = '2s'"))
                    another_write.execute(insert, {"id": "another"})
                assert not migration.done()
            migration.result()
        migrating.dispose()
        writing.dispose()
    built = [statement for statement in statements if re.match("CREATE INDEX.* ON jobs ", statement)]
    assert len(built) >= 2
    assert all(statement.startswith("CREATE INDEX CONCURRENTLY") for statement in built)


def test_an_index_that_broke_off_is_built_again(engine: Engine, settings: Settings) -> None:
    with another_database(engine, settings) as url:
        migrating = make_engine(url)
        upgrade(migrating, "0001")
        with migrating.begin() as connection:
            for name in ("ix_jobs_worked_off", "ix_jobs_turns"):
                connection.execute(text(f"CREATE INDEX {name} ON jobs (id)"))
        migrate(migrating)
        with migrating.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        migrating.dispose()


def upgrade(engine: Engine, revision: str) -> None:
    """Up to a revision that is not the newest, as an older version of the project left it."""
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    before = sorted(inspect(engine).get_table_names())
    migrate(engine)
    assert sorted(inspect(engine).get_table_names()) == before
    with engine.connect() as connection:
        # Neither the lock nor the lifted time limits stay behind in the pool.
        assert (
            connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")).scalar()
            == 0
        )
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "15s"


def test_the_newest_revision_is_alembics(engine: Engine) -> None:
    assert ScriptDirectory(str(database.MIGRATIONS)).get_current_head() == newest_revision()
    database.check(engine)


def test_a_schema_that_is_behind_is_outdated_and_one_that_is_ahead_is_not(
    engine: Engine, settings: Settings
) -> None:
    with another_database(engine, settings) as url:
        behind = make_engine(url)
        with pytest.raises(SchemaOutdated, match="python -m catalog migrate"):
            database.check(behind)
        upgrade(behind, "0001")
        with pytest.raises(SchemaOutdated, match=f"revision 0001, not {newest_revision()}"):
            database.check(behind)
        with behind.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        database.check(behind)
        with pytest.raises(NotMigrated, match="newer version"):
            migrate(behind)
        behind.dispose()


def test_a_database_that_only_reads_is_not_ready(engine: Engine, settings: Settings) -> None:
    """As after a failover to a standby that nobody has promoted: every product would be refused."""
    with another_database(engine, settings) as url:
        standby = make_engine(url)
        migrate(standby)
        database.check(standby)
        with standby.begin() as connection:
            connection.execute(text("ALTER DATABASE empty SET default_transaction_read_only = on"))
        standby.dispose()
        with pytest.raises(DatabaseUnavailable, match="only reads"):
            database.check(standby)
        standby.dispose()


def test_options_of_the_url_hold_beside_ours(engine: Engine, settings: Settings) -> None:
    """A database that others use as well gives a schema of one's own, and the URL names it."""
    with another_database(engine, settings) as elsewhere:
        shared = make_engine(elsewhere)
        with shared.begin() as connection:
            connection.execute(text("CREATE SCHEMA shop"))
        shared.dispose()
        url = make_url(elsewhere.resolved_database_url()).update_query_dict(
            {"options": "-c search_path=shop -c statement_timeout=0"}
        )
        own = make_engine(
            Settings.model_validate({"database_url": url.render_as_string(hide_password=False)})
        )
        migrate(own)
        database.check(own)
        assert inspect(own).has_table("jobs", schema="shop")
        with own.connect() as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "15s"
        own.dispose()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_title_is_refused(
    engine: Engine, settings: Settings, encoding: str
) -> None:
    made = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    with another_database(engine, settings, made) as url:
        narrow = make_engine(url)
        with pytest.raises(NotMigrated, match=f"encoding is {encoding}.*TEMPLATE template0"):
            migrate(narrow)
        assert inspect(narrow).get_table_names() == []
        narrow.dispose()


def test_what_an_operator_has_set_for_the_whole_database_changes_nothing_that_is_read_or_written(
    engine: Engine, settings: Settings
) -> None:
    defaults = {
        "default_transaction_isolation": "serializable",
        "timezone": "Asia/Shanghai",
        "datestyle": "SQL, DMY",
        "intervalstyle": "sql_standard",
        "standard_conforming_strings": "off",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
    }
    with another_database(engine, settings) as url:
        with engine.begin() as connection:
            for name, value in defaults.items():
                connection.execute(text(f"ALTER DATABASE empty SET {name} TO '{value}'"))
        set_by_others = make_engine(url)
        migrate(set_by_others)
        written = b"\\x00 red \0"
        with database.transaction(set_by_others) as session:
            item = (create_tenant(session, "a tenant").id, "text")
            embedding_cache.TEXTS.remember(session, {(*item, "1"): written})
            assert embedding_cache.TEXTS.recall(session, [item], "1", max_age_days=1) == {item: written}
            assert session.scalar(text("SELECT now()")).utcoffset() == timedelta(0)
            assert session.scalar(text("SELECT interval '-90 minutes'")) == timedelta(minutes=-90)
            assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
            assert session.scalar(text("SELECT CAST(0.123456789 AS float8)")) == 0.123456789
        set_by_others.dispose()


def test_a_migration_may_take_longer_than_an_operator_allows_all_others(
    engine: Engine, settings: Settings
) -> None:
    limits = [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_timeout",
    ]
    with another_database(engine, settings) as url:
        with engine.begin() as connection:
            connection.execute(text("ALTER DATABASE empty SET transaction_timeout TO '1h'"))
        limited = make_engine(url)
        with limited.connect() as connection:
            assert connection.execute(text("SHOW transaction_timeout")).scalar_one() == "1h"
            without_time_limits(connection)
            assert [connection.execute(text(f"SHOW {name}")).scalar_one() for name in limits] == ["0"] * 4
            connection.invalidate()
        limited.dispose()


def test_who_may_not_have_pgvector_is_told_whom_to_ask(engine: Engine, settings: Settings) -> None:
    with another_database(engine, settings) as url:
        owner = make_engine(url)
        with owner.begin() as connection:
            connection.execute(text("GRANT CREATE ON SCHEMA public TO pg_monitor"))
        owner.dispose()

        @event.listens_for(owner, "connect")
        def become_an_ordinary_user(connection: psycopg.Connection, _: object) -> None:
            connection.execute("SET ROLE pg_monitor")  # any role that is no superuser and is there already
            connection.commit()

        with pytest.raises(NotMigrated, match="superuser run CREATE EXTENSION vector"):
            migrate(owner)
        owner.dispose()
