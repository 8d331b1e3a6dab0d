"""`python -m web`: read the settings, then become gunicorn with their address and number of threads.

gunicorn's master lives as long as the service and does no more than watch its worker. Were it to read the settings
itself, it would keep pydantic for good (15 MB); here they are read by a program that `exec` replaces. Arguments are
handed on to gunicorn.
"""

from __future__ import annotations

import argparse
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
        *(("--logger-class", "web.gunicorn_log.JsonLogger") if settings.log_json else ()),
        "web.app:create_app()",
    ]


def arguments() -> list[str]:
    """Those for gunicorn. Ends the process where they ask for help or for what would count wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m web",
        usage="%(prog)s [--help] [OPTION OF GUNICORN ...]",
        description="Serve the intake API and the pages. Address, port and all else are TAGSMITH_... variables, see "
        "Settings in README.md; further options go to gunicorn as they are.",
        epilog="Example: TAGSMITH_PORT=8001 python -m web --worker-tmp-dir /dev/shm",
        allow_abbrev=False,
    )
    parser.add_argument("-w", "--workers", help=argparse.SUPPRESS)
    known, others = parser.parse_known_args()
    if known.workers is not None:
        parser.error(
            "it is one process, or each would count its own metrics: start more on ports of their own"
        )
    return others


def main() -> None:
    others = arguments()
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise SystemExit(f"tagsmith: {error}") from None
    os.execv(sys.executable, [*command(settings), *others])


if __name__ == "__main__":
    main()
