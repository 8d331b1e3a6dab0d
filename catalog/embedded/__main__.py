"""`python -m catalog.embedded postgres|redis`: runs one server in the foreground until SIGTERM or SIGINT."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from catalog.embedded import postgres as postgres_server
from catalog.embedded import redis as redis_server
from catalog.embedded.foreground import EmbeddedError
from catalog.errors import SettingsError
from catalog.settings import Settings


@click.group()
def main() -> None:
    """The embedded servers of one installation; state under TAGSMITH_VAR."""


@main.command(epilog="Example: python -m catalog.embedded postgres -c max_connections=200")
@click.option("-c", "options", multiple=True, metavar="NAME=VALUE", help="A further setting of PostgreSQL.")
def postgres(options: tuple[str, ...]) -> None:
    """Run PostgreSQL in the foreground."""
    with _clear_errors():
        settings = Settings.load()
    if settings.database_url is not None:
        click.echo("TAGSMITH_DATABASE_URL is set: no PostgreSQL of our own is needed", err=True)
        return
    with _clear_errors():
        sys.exit(postgres_server.serve(settings.var, options))


@main.command(epilog="Example: TAGSMITH_VAR=/srv/tagsmith python -m catalog.embedded redis")
def redis() -> None:
    """Run Redis in the foreground."""
    with _clear_errors():
        settings = Settings.load()
    if settings.broker_url is not None:
        click.echo("TAGSMITH_BROKER_URL is set: no Redis of our own is needed", err=True)
        return
    with _clear_errors():
        redis_server.serve(settings.var)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turns what the operator can mend into one line and exit code 1."""
    try:
        yield
    except (EmbeddedError, SettingsError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
