"""`python -m web`: read the settings, then become gunicorn with their address and number of threads.

gunicorn's master lives as long as the service and does no more than watch its worker. Were it to read the settings
itself, it would keep pydantic for good (15 MB); here they are read by a program that `exec` replaces. Arguments are
handed on to gunicorn.
"""

from __future__ import annotations

import os
import sys

from catalog.errors import SettingsError
from catalog.settings import Settings
from web.precedence import MOST_IN_LINE

# Beside the threads that may all hold a `wait`, and those of an import's uploads in line: uploads, reads, probes and
# scrapes find one of these.
FREE_THREADS = 16


def command(settings: Settings) -> list[str]:
    """The command line of gunicorn."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return [
        *(sys.executable, "-m", "gunicorn", "--config", "python:web.gunicorn"),
        *("--bind", f"{host}:{settings.port}"),
        *("--threads", str(settings.max_waiters + MOST_IN_LINE + FREE_THREADS)),
        "web.app:create_app()",
    ]


def main() -> None:
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise SystemExit(f"tagsmith: {error}") from None
    os.execv(sys.executable, [*command(settings), *sys.argv[1:]])


if __name__ == "__main__":
    main()
