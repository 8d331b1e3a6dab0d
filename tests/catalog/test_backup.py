"""A dump and back, with PostgreSQL's own programs, on the suite's embedded server."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from catalog import backup, database, tenants
from catalog.embedded.postgres import NEWEST, program_folder
from catalog.errors import BackupFailed
from catalog.settings import Settings
from tests.conftest import another_database

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def test_what_was_dumped_comes_back_with_its_keys(
    shop: "Shop", engine: Engine, settings: Settings, api_key: str, tmp_path: Path
) -> None:
    _, job = shop.accept("A navy shirt")
    assert shop.finish(shop.claim_one(job.id), "navy", [0.6] * 768)
    before = shop.product(job.product_id)
    file = tmp_path / "tagsmith.dump"
    backup.dump(settings, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(BackupFailed, match="holds products"):
        backup.restore(settings, engine, file)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE tenants, products, jobs CASCADE"))
    backup.restore(settings, engine, file)
    assert shop.product(job.product_id) == before
    shop.accept("A later shirt")
    backup.restore(settings, engine, file, replace=True)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM products")).scalar() == 1
    assert [tag.value for tag in before.tags or []] == ["navy", "navy"]
    with database.transaction(engine) as session:
        assert tenants.authenticate(session, api_key) == shop.tenant
    database.check(engine)


def test_nothing_is_lost_to_a_file_that_is_no_dump(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    product, _ = shop.accept("A navy shirt")
    file = tmp_path / "notes.txt"
    file.write_text("no dump")
    with pytest.raises(BackupFailed, match="valid archive"):
        backup.restore(settings, engine, file, replace=True)
    assert shop.product(product.id) == product


def test_a_dump_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(program_folder(NEWEST)))
    file = tmp_path / "tagsmith.dump"
    file.write_text("of yesterday")
    nowhere = Settings(database_url=SecretStr(f"postgresql:///tags?host={tmp_path}"))
    with pytest.raises(BackupFailed, match="connection to server"):
        backup.dump(nowhere, file)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of yesterday"]


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://me:s3cret@db/tags", "s3cret"),
        ("postgresql:///tags?host=db&user=me&password=s3cret", "s3cret"),
        ("postgresql://me:%20s3%20cret%0A@db/tags", " s3 cret\n"),
        (f"postgresql://me:s3cret{'x' * 2000}@db/tags", f"s3cret{'x' * 2000}"),
    ],
)
def test_a_database_of_ones_own_is_dumped_by_the_program_on_the_path_and_its_password_is_on_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, password: str
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "$2"\necho -n "$PGPASSWORD"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    backup.dump(Settings(database_url=SecretStr(url)), tmp_path / "dump")
    address, given = (tmp_path / "dump").read_text().split("\n", 1)
    where = set(address.removeprefix("--dbname=").split())
    assert (where, given) == ({"host=db", "user=me", "dbname=tags"}, password)


def test_a_parameter_that_the_programs_do_not_know_is_said_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed) as failed:
        backup.dump(Settings(database_url=SecretStr("postgresql://me:s3cret@db/tags?x=1")), tmp_path / "dump")
    assert "parameter" in str(failed.value) and "s3cret" not in str(failed.value)


def test_a_dump_replaces_nothing_but_files(shop: "Shop", settings: Settings, tmp_path: Path) -> None:
    pipe, link, circle = tmp_path / "pipe", tmp_path / "latest.dump", tmp_path / "circle"
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    for other in (pipe, tmp_path / "-", tmp_path):
        with pytest.raises(BackupFailed, match="no file that could be replaced"):
            backup.dump(settings, other)
    for wrong in (circle, pipe / "x", tmp_path / ("x" * 300), tmp_path / ("x" * 253)):
        with pytest.raises(BackupFailed, match="cannot write"):
            backup.dump(settings, wrong)
    link.symlink_to(tmp_path / "monday.dump")
    backup.dump(settings, link)
    assert link.is_symlink() and (tmp_path / "monday.dump").read_bytes().startswith(b"PGDMP")
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "latest.dump", "monday.dump", "circle"}


def test_nothing_is_lost_to_the_first_half_of_a_dump(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    product, _ = shop.accept("A navy shirt")
    file = tmp_path / "tagsmith.dump"
    backup.dump(settings, file)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(BackupFailed, match="end of file"):
        backup.restore(settings, engine, file, replace=True)
    assert shop.product(product.id) == product


def test_nothing_is_lost_to_a_dump_of_a_newer_version(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    product, _ = shop.accept("A navy shirt")
    file = tmp_path / "tagsmith.dump"
    shop.sql("UPDATE alembic_version SET version_num = '9999'")
    try:
        backup.dump(settings, file)
    finally:
        shop.sql("UPDATE alembic_version SET version_num = :own", own=database.newest_revision())
    shop.sql("UPDATE products SET title = 'Sent later'")
    with pytest.raises(BackupFailed, match=r"newer version \(revision 9999, and this one knows "):
        backup.restore(settings, engine, file, replace=True)
    assert shop.product(product.id).title == "Sent later"
    database.check(engine)


@pytest.mark.parametrize("own", ["TABLE notes (line text)", "VIEW notes AS SELECT id FROM jobs"])
def test_nothing_is_lost_to_a_dump_that_does_not_fit_beside_what_else_is_there(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path, own: str
) -> None:
    product, _ = shop.accept("A navy shirt")
    with engine.begin() as connection:
        connection.execute(text(f"CREATE {own}"))
    try:
        file = tmp_path / "tagsmith.dump"
        backup.dump(settings, file)
        with pytest.raises(BackupFailed, match="notes"):
            backup.restore(settings, engine, file, replace=True)
        assert shop.product(product.id) == product
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP {own.split()[0]} notes"))


def test_a_restore_that_is_not_let_in_says_why(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dump is larger than a pipe: it breaks while it is written."""
    shop.accept("A navy shirt" + " x" * 200_000)
    file = tmp_path / "tagsmith.dump"
    backup.dump(settings, file)
    connected = backup._connected

    def refused(settings: Settings, name: str) -> tuple[list[str], dict[str, str]]:
        command, environment = connected(settings, name)
        return [command[0], "--no-password", "--dbname=host=/nowhere"], environment

    monkeypatch.setattr(backup, "_connected", refused)
    with pytest.raises(BackupFailed, match="/nowhere"):
        backup.restore(settings, engine, file, replace=True)


def test_a_restore_that_is_cut_off_changes_nothing(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, _ = shop.accept("A navy shirt")
    file = tmp_path / "tagsmith.dump"
    backup.dump(settings, file)
    real = backup._program

    def cut_off(settings: Settings, name: str) -> str:
        if name != "pg_restore":
            return real(settings, name)
        program = tmp_path / name  # as if the disk were gone after the first look at the file
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *=-) \'{real(settings, name)}\' "$@" | head -n 60; kill -9 $$;; esac\n'
        )
        program.chmod(0o755)
        return str(program)

    monkeypatch.setattr(backup, "_program", cut_off)
    with pytest.raises(BackupFailed):
        backup.restore(settings, engine, file, replace=True)
    assert shop.product(product.id) == product


def test_a_dump_goes_into_an_empty_database_elsewhere(
    shop: "Shop", engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(program_folder(NEWEST)))
    product, _ = shop.accept("A navy shirt")
    backup.dump(settings, tmp_path / "dump")
    with another_database(engine, settings) as elsewhere:
        there = database.make_engine(elsewhere)
        backup.restore(elsewhere, there, tmp_path / "dump")
        with there.connect() as connection:
            assert connection.execute(text("SELECT id FROM products")).scalars().all() == [product.id]
        there.dispose()


def test_before_the_first_start_there_is_nothing_to_dump(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="start it once"):
        backup.dump(Settings(var=tmp_path), tmp_path / "dump")
