"""`python -m benchmarks`: measure an installation or a checkpoint, print a table or JSON.

Every module of `benchmarks.commands` is a command of the same name, its `command`.
"""

from __future__ import annotations

import importlib
import pkgutil
import signal

import click

from benchmarks import commands


class Benchmarks(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(
            f"benchmarks.commands.{name.replace('-', '_')}"
        ).command
        return command


@click.group(cls=Benchmarks)
def main() -> None:
    """Measure an installation or a checkpoint. Times are of this machine and this minute: compare only within one
    run.
    """
    # A termination unwinds as Ctrl-C does, so that an installation of our own is stopped as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    main()
