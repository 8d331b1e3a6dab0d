"""The whole database as one file, and back. PostgreSQL's own programs do it; photos are files and are copied as such.

For the embedded server the programs are those of the wheel that made its data, for another one those on the PATH, which
whoever runs a PostgreSQL keeps at its version. Nothing has to stop for a dump.
"""

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import Engine, make_url, select, text

from catalog import database
from catalog.embedded.foreground import EmbeddedError
from catalog.embedded.places import postgres_data
from catalog.embedded.postgres import NEWEST, program_folder
from catalog.errors import BackupFailed
from catalog.settings import Settings
from catalog.tables import Base, Product


def dump(settings: Settings, file: Path) -> None:
    """Writes the file, for its owner only, and in one piece or not at all. Raises BackupFailed."""
    beside = file.with_name(file.name + ".new")
    try:
        # It holds all texts of all tenants.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Comments on extensions could be restored by a superuser only.
            _run(
                settings,
                ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--no-comments"],
                descriptor,
            )
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(file)
    except OSError as error:
        raise BackupFailed(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def restore(settings: Settings, engine: Engine, file: Path, *, replace: bool = False) -> None:
    """Makes the database that of the dump, and brings it to the newest revision. Raises BackupFailed, also where there
    are products already, unless the dump is to `replace` them.
    """
    archive = str(file.absolute())
    _run(settings, ["pg_restore", "--list", archive])  # before anything is lost to a file that is no dump
    database.migrate(engine)  # also makes the extension, or says who can
    with database.transaction(engine) as session:
        if not replace and session.execute(select(Product.id).limit(1)).scalar() is not None:
            raise BackupFailed(
                "this database holds products: give --replace to lose them, the samples of a first start for instance"
            )
        Base.metadata.drop_all(session.connection())
        session.execute(text("DROP TABLE alembic_version"))
    try:
        _run(settings, ["pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", archive])
    finally:
        database.migrate(engine)


def _run(settings: Settings, command: list[str], stdout: int = subprocess.DEVNULL) -> None:
    url = make_url(settings.resolved_database_url()).set(drivername="postgresql")
    # The command line can be read by everybody on the machine.
    password = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    address = url._replace(password=None).render_as_string()
    done = subprocess.run(
        [_program(settings, command[0]), f"--dbname={address}", *command[1:]],
        env={**os.environ, **password},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BackupFailed(" ".join(done.stderr.split()))


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
