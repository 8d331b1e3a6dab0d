from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Engine, inspect, make_url, text

from catalog.database import make_engine, migrate
from catalog.settings import Settings
from catalog.tables import Base


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
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS empty"))
        connection.execute(text("CREATE DATABASE empty"))
    url = make_url(settings.resolved_database_url()).set(database="empty")
    elsewhere = settings.model_validate(
        {**settings.model_dump(), "database_url": url.render_as_string(False)}
    )
    engines = [make_engine(elsewhere) for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as starters:
            list(starters.map(migrate, engines))
        assert inspect(engines[0]).has_table("jobs")
    finally:
        for each in engines:
            each.dispose()
        with autocommit.connect() as connection:
            connection.execute(text("DROP DATABASE empty"))


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
