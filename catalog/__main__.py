"""`python -m catalog`: schema, backups, keys and jobs, for the operator."""

import json
import os
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click
from sqlalchemy import Engine

from catalog import backup, database, job_list, jobs, tenants
from catalog.command_line import WAIT_S, Number
from catalog.errors import CatalogError, DatabaseUnavailable
from catalog.settings import Settings
from catalog.views import STATUSES, Status

KEY_FILE = "api-key"
FIRST_TENANT = "default"
LONGEST_NAME = 200
# Categories of Unicode: control characters, halves of others, ends of lines and of paragraphs.
UNLISTABLE = {"Cc", "Cs", "Zl", "Zp"}

Given = TypeVar("Given", str, tuple[str, ...], None)


def a_text(context: click.Context, parameter: click.Parameter, given: Given) -> Given:
    """Which bytes that are no UTF-8 are not; or several."""
    if given is not None and any(unicodedata.category(character) == "Cs" for character in "".join(given)):
        raise click.BadParameter("it is not valid UTF-8")
    return given


def a_name(context: click.Context, parameter: click.Parameter, given: str) -> str:
    """One that can be listed on a line."""
    if len(given) > LONGEST_NAME or {unicodedata.category(character) for character in given} & UNLISTABLE:
        raise click.BadParameter(
            f"give up to {LONGEST_NAME} characters, on one line and without control characters"
        )
    if parameter.required and not given.strip():
        raise click.BadParameter("it needs a name")
    return given


@click.group()
def main() -> None:
    """The records of one installation."""


@main.command(epilog="Example: python -m catalog migrate && python -m web")
def migrate() -> None:
    """Bring the database schema to the newest revision."""
    with _engine() as (_, engine):
        database.migrate(engine)
        click.echo("the database schema is up to date")


@main.command(epilog="Example: python -m catalog prepare && python -m web")
@click.option(
    "--wait-s",
    default=60.0,
    show_default=True,
    type=WAIT_S,
    help="How long to wait for the database, in seconds.",
)
def prepare(wait_s: float) -> None:
    """Wait for the database, migrate it, and write the first API key to var/api-key unless it is there."""
    with _engine() as (settings, engine):
        _await_database(engine, wait_s)
        database.migrate(engine)
        path = settings.var / KEY_FILE
        if write_first_key(engine, path):
            click.echo(f"wrote the first API key to {path}")


@main.command(epilog="Example: python -m catalog dump tagsmith.dump && cp -a var/photos photos")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def dump(file: Path) -> None:
    """Write the whole database to FILE, while everything goes on.

    Photos are files of their own: copy them after it, so that none is missing that the dump names.
    """
    with _engine() as (settings, _):
        backup.dump(settings, file)


@main.command(epilog="Example: cp -a photos var/ && python -m catalog restore tagsmith.dump --replace")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--replace", is_flag=True, help="Lose the products that there are.")
def restore(file: Path, replace: bool) -> None:
    """Make the database, which has to run, that of FILE.

    Copy its photos back first. The keys are those of FILE then: start web again, which writes a first key anew.
    """
    with _engine() as (settings, engine):
        backup.restore(settings, engine, file, replace=replace)
        click.echo("restored: start web again")


@main.group()
def key() -> None:
    """API keys."""


@key.command(epilog="Example: python -m catalog key create --tenant my-shop --name checkout")
@click.option(
    "--tenant", required=True, callback=a_name, help="The tenant's name; made if there is none of that name."
)
@click.option("--name", default="", callback=a_name, help="What the key is for.")
def create(tenant: str, name: str) -> None:
    """Make an API key and print it: it cannot be shown again."""
    with _engine() as (_, engine), database.transaction(engine) as session:
        tenant_id = tenants.create_tenant(session, tenant).id
        plain = tenants.create_api_key(session, tenant_id, name)
    click.echo(plain)


@key.command("list", epilog="Example: python -m catalog key list --tenant my-shop --json")
@click.option("--tenant", callback=a_text, help="Only the keys of the tenant of this name.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_keys(tenant: str | None, as_json: bool) -> None:
    """Show which keys there are, without the keys themselves."""
    with _engine() as (_, engine), database.transaction(engine) as session:
        keys = [
            {**asdict(view), "created_at": view.created_at.isoformat(timespec="seconds")}
            for view in tenants.api_keys(session, tenant)
        ]
    if as_json:
        click.echo(json.dumps(keys, ensure_ascii=False))
        return
    for entry in keys:
        click.echo("  ".join(filled for filled in entry.values() if filled))


@key.command(epilog="Example: python -m catalog key revoke 2c26b46b68ffc68f")
@click.argument("key_id", callback=a_text)
def revoke(key_id: str) -> None:
    """Make the key of this id, see `key list`, useless from the next request on."""
    with _engine() as (_, engine), database.transaction(engine) as session:
        if not tenants.revoke_api_key(session, key_id):
            raise click.ClickException(
                f"there is no key of the id {key_id!r}: see python -m catalog key list"
            )
    click.echo(f"revoked {key_id}")


@main.group()
def job() -> None:
    """Jobs."""


@job.command("list", epilog="Example: python -m catalog job list --status failed --tenant my-shop --json")
@click.option("--status", type=click.Choice(STATUSES), default="failed", show_default=True)
@click.option("--tenant", callback=a_text, help="Only the jobs of the tenant of this name.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_jobs(status: Status, tenant: str | None, limit: int, as_json: bool) -> None:
    """Show the jobs of a status, the newest first: id, tenant, lane, attempts, when it ended and why."""
    with _engine() as (_, engine), database.transaction(engine) as session:
        found = [asdict(line) for line in job_list.newest(session, status, tenant, limit)]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for entry in found:
        click.echo("  ".join(str(filled) for filled in entry.values() if filled is not None))


@job.command(epilog="Example: python -m catalog job replay --all-failed --tenant my-shop")
@click.argument("job_ids", nargs=-1, callback=a_text)
@click.option("--all-failed", is_flag=True, help="All failed jobs whose product is still as it was.")
@click.option("--tenant", callback=a_text, help="With --all-failed: only those of the tenant of this name.")
def replay(job_ids: tuple[str, ...], all_failed: bool, tenant: str | None) -> None:
    """Queue failed jobs again; the next sweep sends them."""
    if bool(job_ids) == all_failed or (tenant is not None and not all_failed):
        raise click.UsageError("name jobs, or give --all-failed, with --tenant for those of one tenant")
    if all_failed:
        with _engine() as (_, engine):
            for part in job_list.failed(engine, tenant):
                with database.transaction(engine) as session:
                    queued = jobs.replay(session, part)
                for job_id in queued:
                    click.echo(job_id)
        return
    with _engine() as (_, engine), database.transaction(engine) as session:
        queued = jobs.replay(session, job_ids)
    for job_id in queued:
        click.echo(job_id)
    if missing := sorted(set(job_ids) - set(queued)):
        raise click.ClickException(
            f"not queued, because not failed or no longer of its product: {', '.join(missing)}"
        )


@job.command(epilog="Example: python -m catalog job prune --older-than-days 90")
@click.option("--older-than-days", type=Number(0, 36_500), required=True)
def prune(older_than_days: float) -> None:
    """Remove the jobs, with their tags, that ended so long ago and that no product needs: of earlier revisions and of
    deleted products. The newest job of a product stays, and the one whose tags it shows.

    Nothing else removes them. Whoever asks for one of them afterwards gets a 404, also by a repeated request with an
    Idempotency-Key that is not forgotten yet.
    """
    removed = 0
    with _engine() as (_, engine):
        for part in job_list.prune(engine, timedelta(days=older_than_days)):
            removed += part
            click.echo(f"\r{removed} jobs", nl=False, err=True)
    click.echo("", err=True)
    click.echo(f"removed {removed} jobs")


def write_first_key(engine: Engine, path: Path) -> bool:
    """Makes a key for the first tenant and writes it to `path`, for its owner only; False if a usable one is there."""
    with database.transaction(engine) as session:
        if path.exists() and tenants.authenticate(session, path.read_text().strip()) is not None:
            return False
        tenant_id = tenants.create_tenant(session, FIRST_TENANT).id
        plain = tenants.create_api_key(session, tenant_id, "first")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(plain + "\n")
    # After the commit: a file that is there holds a key that works.
    beside.replace(path)
    return True


def _await_database(engine: Engine, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            database.ping(engine)
            return
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def _engine() -> Iterator[tuple[Settings, Engine]]:
    """Settings and engine for one command; what the operator can mend becomes one line and exit code 1."""
    try:
        settings = Settings.load()
        engine = database.make_engine(settings)
        try:
            yield settings, engine
        finally:
            engine.dispose()
    except CatalogError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
