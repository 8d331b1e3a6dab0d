"""Where the embedded servers keep their data and their sockets. Pure arithmetic on paths; creates nothing.

A unix socket's path may have 107 bytes, and where PostgreSQL is told one a comma ends it. Where `var` lies too deep for
that, or has a comma in its name, the sockets move to a short folder under /tmp, named after the user and a hash of
`var`, so that every process of the installation finds it.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

# sun_path in sockaddr_un has 108 bytes on Linux, one of them the final zero.
MAX_SOCKET_PATH_BYTES = 107
POSTGRES_PORT = 5432  # only part of the socket's file name
POSTGRES_SOCKET = f".s.PGSQL.{POSTGRES_PORT}"
DATABASE = "tagsmith"


def identity(var: Path) -> str:
    """A short name for this installation, the same in every process that uses this `var`."""
    return hashlib.sha256(os.fsencode(var.resolve())).hexdigest()[:12]


def runtime_folder(var: Path) -> Path:
    """The folder that holds the sockets: one folder for each server inside it."""
    folder = var.resolve() / "run"
    short = len(os.fsencode(folder / "postgres" / POSTGRES_SOCKET)) <= MAX_SOCKET_PATH_BYTES
    if short and "," not in os.fspath(folder):
        return folder
    # Not the temp folder of the environment: that may differ between the processes of one installation.
    return Path(f"/tmp/tagsmith-{os.geteuid()}-{identity(var)}")


def postgres_data(var: Path) -> Path:
    """The folder of PostgreSQL's data."""
    return var.resolve() / "postgres"


def postgres_socket_folder(var: Path) -> Path:
    """The folder of PostgreSQL's socket."""
    return runtime_folder(var) / "postgres"


def postgres_url(var: Path) -> str:
    """SQLAlchemy URL of the embedded PostgreSQL."""
    return f"postgresql+psycopg://{DATABASE}@/{DATABASE}?host={quote(str(postgres_socket_folder(var)))}"


def redis_data(var: Path) -> Path:
    """The folder of Redis's append-only file."""
    return var.resolve() / "redis"


def redis_socket(var: Path) -> Path:
    """Redis's socket."""
    return runtime_folder(var) / "redis" / "redis.sock"


def redis_url(var: Path) -> str:
    """Broker URL of the embedded Redis, in the form Celery takes for unix sockets."""
    return f"redis+socket://{quote(str(redis_socket(var)))}"
