"""`python -m training`: make a checkpoint from a catalogue, and measure one.

Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 could not be done, 2 wrong usage.
`compare` answers by its exit code: 0 no worse, 1 worse or too few rows to be sure, 2 nothing could be compared.
"""

import sys

import click

from training.commands import average, calibrate, compare, contract, evaluate, fit


@click.group()
def main() -> None:
    """Train and measure checkpoints."""


for module in (average, calibrate, compare, contract, evaluate, fit):
    main.add_command(module.command)


if __name__ == "__main__":
    sys.exit(main())
