"""What `python -m benchmarks all` runs, in this order: each a command of its own, with options that fit together into
about half an hour on two idle cores, and those of a trial of a few minutes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    name: str
    command: str  # of `python -m benchmarks`
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()  # besides, they win


TRIAL = ("--products", "24", "--rounds", "1")

STEPS = (
    Step("latency", "latency", quick=("--count", "10")),
    Step("service, starter, bulk", "service", ("--lane", "bulk"), TRIAL),
    Step("service, starter, interactive", "service", ("--lane", "interactive"), TRIAL),
    Step("service, base, bulk", "service", ("--towers", "base", "--products", "192"), TRIAL),
    Step(
        "service, base, interactive",
        "service",
        ("--towers", "base", "--lane", "interactive", "--products", "192"),
        TRIAL,
    ),
    Step("growth", "growth", quick=("--workers", "1,2", "--seconds", "3")),
    Step(
        "under load",
        "under-load",
        ("--products", "30", "--import", "900"),
        ("--products", "2", "--import", "150", "--seconds", "3", "--rounds", "1"),
    ),
    Step("intake", "intake", quick=("--requests", "20", "--rounds", "1")),
    Step("peers", "peers", quick=TRIAL),
    Step("forward", "forward", ("--towers", "base"), ("--rounds", "1")),
)
