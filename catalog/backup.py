"""The whole database as one file, and back. PostgreSQL's own programs do it; photos are files and are copied as such.

For the embedded server the programs are those of the wheel that made its data, for another one those on the PATH, which
whoever runs a PostgreSQL keeps at its version. Nothing has to stop for a dump.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, make_url, select

from catalog import database
from catalog.embedded.foreground import EmbeddedError
from catalog.embedded.places import postgres_data
from catalog.embedded.postgres import NEWEST, program_folder
from catalog.errors import BackupFailed
from catalog.settings import Settings
from catalog.tables import Base, Product

LOCK_TIMEOUT_S = 30  # for what web and workers are at
# A dump leaves the search path empty.
_REFUSE_A_NEWER_DUMP = """
RESET search_path;
DO $$ DECLARE its text := (SELECT version_num FROM alembic_version); BEGIN
    IF its > '{newest}' THEN
        RAISE 'the dump is of a newer version (revision %, and this one knows {newest}): restore it with that one', its;
    END IF;
END $$;
"""


def dump(settings: Settings, file: Path) -> None:
    """Writes the file, for its owner only, and in one piece or not at all. Raises BackupFailed."""
    try:
        file = file.resolve()  # of a link, what it leads to
        if file.name == "-" or (file.exists() and not file.is_file()):
            raise BackupFailed(f"{file} is no file that could be replaced: give another one")
        _dump(settings, file)
    except (OSError, RuntimeError) as error:  # the latter of links in a circle
        raise BackupFailed(f"cannot write {file}: {getattr(error, 'strerror', None) or error}") from error


def _dump(settings: Settings, file: Path) -> None:
    beside = file.with_name(file.name + ".new")
    try:
        # It holds all texts of all tenants.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Comments on extensions could be restored by a superuser only.
            options = ["--format=custom", "--no-owner", "--no-privileges", "--no-comments"]
            command, environment = _connected(settings, "pg_dump")
            _run([*command, *options], env=environment, stdout=descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(file)
    finally:
        with suppress(OSError):
            beside.unlink()


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
    command, environment = _connected(settings, "psql")
    with tempfile.TemporaryFile() as complaints:
        reader = subprocess.Popen(
            [*read, "--file=-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        )
        writer = subprocess.Popen(
            [*command, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints,
        )  # fmt: skip
        with suppress(BrokenPipeError), reader, writer:  # told by how psql ends
            assert reader.stdout is not None
            assert writer.stdin is not None
            begin = f"BEGIN; SET lock_timeout = '{LOCK_TIMEOUT_S}s'; DROP TABLE {tables}, alembic_version;\n"
            writer.stdin.write(begin.encode())
            shutil.copyfileobj(reader.stdout, writer.stdin)
            if reader.wait() == 0:  # else psql finds no COMMIT, and takes back all of it
                refuse = _REFUSE_A_NEWER_DUMP.format(newest=database.newest_revision())
                writer.stdin.write(f"{refuse}COMMIT;\n".encode())
        if reader.returncode != 0 or writer.returncode != 0:
            complaints.seek(0)
            raise BackupFailed(_in_one_line(complaints.read()) or "pg_restore or psql was ended")
    database.migrate(engine)


def _connected(settings: Settings, name: str) -> tuple[list[str], dict[str, str]]:
    """A program with the address of the database, as the engine has it, and its environment: that holds the password,
    since a command line can be read by everybody on the machine.
    """
    url = make_url(settings.resolved_database_url())
    _, address = url.get_dialect()().create_connect_args(url)
    password = address.pop("password", None)
    try:
        connection = make_conninfo(**address)
    except psycopg.Error as error:
        raise BackupFailed(
            "the database's URL has a parameter that PostgreSQL's programs do not know"
        ) from error
    environment = {**os.environ} if password is None else {**os.environ, "PGPASSWORD": password}
    return [_program(settings, name), "--no-password", f"--dbname={connection}"], environment


def _run(
    command: list[str], *, env: Mapping[str, str] | None = None, stdout: int = subprocess.DEVNULL
) -> None:
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise BackupFailed(_in_one_line(done.stderr) or f"{Path(command[0]).name} was ended")


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
