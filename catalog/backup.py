"""The whole database as one file, and back. PostgreSQL's own programs do it; photos are files and are copied as such.

For the embedded server the programs are those of the wheel that made its data, for another one those on the PATH, which
whoever runs a PostgreSQL keeps at its version. Nothing has to stop for a dump.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, make_url, select

from catalog import database
from catalog.embedded.foreground import EmbeddedError
from catalog.embedded.places import postgres_data
from catalog.embedded.postgres import NEWEST, program_folder
from catalog.errors import BackupFailed
from catalog.settings import Settings
from catalog.tables import Base, Product

STDOUT = Path("-")
LOCK_TIMEOUT_S = 30  # for what web and workers are at


def dump(settings: Settings, file: Path) -> None:
    """Writes the file, for its owner only, and in one piece or not at all; `-` is stdout. Raises BackupFailed."""
    if file == STDOUT:
        _dump_to(settings, sys.stdout.fileno())
        return
    file = file.resolve()  # of a link, what it leads to
    if file.exists() and not file.is_file():
        raise BackupFailed(f"{file} is no file that could be replaced: give another one, or - for stdout")
    beside = file.with_name(file.name + ".new")
    try:
        # It holds all texts of all tenants.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _dump_to(settings, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(file)
    except OSError as error:
        raise BackupFailed(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _dump_to(settings: Settings, descriptor: int) -> None:
    # Comments on extensions could be restored by a superuser only.
    options = ["--no-password", "--format=custom", "--no-owner", "--no-privileges", "--no-comments"]
    with _connection(settings) as environment:
        _run([_program(settings, "pg_dump"), *options], env=environment, stdout=descriptor)


def restore(settings: Settings, engine: Engine, file: Path, *, replace: bool = False) -> None:
    """Makes the database that of the dump, and brings it to the newest revision; what was there goes with the last
    line of the dump or not at all. Raises BackupFailed, also where there are products already, unless the dump is to
    `replace` them.
    """
    archive = str(file.absolute())
    read = [_program(settings, "pg_restore"), "--no-owner", archive]
    # Whole: nothing is locked for a file that is no dump, or the first half of one.
    _run([*read, "--file=/dev/null"])
    database.migrate(engine)  # also makes the extension, or says who can
    with database.transaction(engine) as session:
        if not replace and session.execute(select(Product.id).limit(1)).scalar() is not None:
            raise BackupFailed(
                "this database holds products: give --replace to lose them, the samples of a first start for instance"
            )
    tables = ", ".join(table.name for table in Base.metadata.tables.values())
    with _connection(settings) as environment, tempfile.TemporaryFile() as complaints:
        reader = subprocess.Popen(
            [*read, "--file=-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        )
        writer = subprocess.Popen(
            [_program(settings, "psql"), "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints,
        )  # fmt: skip
        with reader, writer, suppress(BrokenPipeError):  # told by how psql ends
            assert reader.stdout is not None
            assert writer.stdin is not None
            begin = f"BEGIN; SET lock_timeout = '{LOCK_TIMEOUT_S}s'; DROP TABLE {tables}, alembic_version;\n"
            writer.stdin.write(begin.encode())
            shutil.copyfileobj(reader.stdout, writer.stdin)
            if reader.wait() == 0:  # else psql finds no COMMIT, and takes back all of it
                writer.stdin.write(b"COMMIT;\n")
        if reader.returncode != 0 or writer.returncode != 0:
            complaints.seek(0)
            raise BackupFailed(_in_one_line(complaints.read()))
    database.migrate(engine)


@contextmanager
def _connection(settings: Settings) -> Iterator[dict[str, str]]:
    """The environment in which PostgreSQL's programs find the database: by a file for this user only, since a command
    line can be read by everybody on the machine (libpq, "The Connection Service File").
    """
    url = make_url(settings.resolved_database_url()).set(drivername="postgresql")
    address = conninfo_to_dict(url.render_as_string(hide_password=False))
    with tempfile.NamedTemporaryFile("w", prefix="tagsmith-", suffix=".conf") as service:
        service.writelines(["[tagsmith]\n", *(f"{name}={value}\n" for name, value in address.items())])
        service.flush()
        yield {**os.environ, "PGSERVICEFILE": service.name, "PGSERVICE": "tagsmith"}


def _run(
    command: list[str], *, env: Mapping[str, str] | None = None, stdout: int = subprocess.DEVNULL
) -> None:
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise BackupFailed(_in_one_line(done.stderr))


def _in_one_line(output: bytes) -> str:
    return " ".join(output.decode(errors="replace").split())


def _program(settings: Settings, name: str) -> str:
    try:
        if settings.database_url is None:
            version = int((postgres_data(settings.var) / "PG_VERSION").read_text())
            return str(program_folder(version) / name)
        return shutil.which(name) or str(program_folder(NEWEST) / name)
    except FileNotFoundError:
        raise BackupFailed(f"there is no database under {settings.var} yet: start it once") from None
    except EmbeddedError:
        raise BackupFailed(f"no {name} found: install the client programs of your PostgreSQL") from None
