"""Memory and open files of processes over time, and the verdict on each: does it grow, does it leak files?"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

SAMPLE_S = 2.0
GROWTH = 0.02
# Of a quarter; fewer say nothing.
SAMPLES = 3


@dataclass
class Life:
    """What was seen of one process and its children from some moment on, one sample each SAMPLE_S."""

    name: str
    process: psutil.Process
    memory: list[int] = field(default_factory=list)  # bytes
    files: list[float] = field(default_factory=list)  # of one process of the family
    processes: list[int] = field(default_factory=list)

    def sample(self) -> None:
        try:
            family = [self.process, *self.process.children(recursive=True)]
            # The processes of PostgreSQL share a cache, and each is resident in what it has touched of it: theirs is
            # what is their own. For the others resident memory is what an operator sees.
            kind = "uss" if self.name == "postgres" else "rss"
            memory = sum(getattr(one.memory_full_info(), kind) for one in family)
            files = sum(one.num_fds() for one in family)
            if self.name == "postgres":
                # Each of its processes keeps the files of all tables and indexes open that it has ever read: more with
                # every statement that it runs for the first time, up to a limit of its own. Its sockets, pipes and
                # events are what could leak.
                files -= sum(len(one.open_files()) for one in family)
        except psutil.NoSuchProcess:  # one of them ended meanwhile: the next sample is whole again
            return
        self.memory.append(memory)
        # PostgreSQL has a process for each connection; a connection that leaks is a file of web or worker as well.
        self.files.append(files / len(family))
        self.processes.append(len(family))


@dataclass(frozen=True)
class Verdict:
    name: str
    watched_s: float
    memory_mb: tuple[float, float]
    files: tuple[float, float]  # of one process: the most after the warm-up, the fewest at the end
    processes: tuple[int, int]  # medians

    @property
    def growth(self) -> float:
        return self.memory_mb[1] / self.memory_mb[0] - 1

    @property
    def holds(self) -> bool:
        return self.growth <= GROWTH and self.files[1] <= self.files[0]


def judge(life: Life) -> Verdict | None:
    """The first third is warm-up; the first and last quarter of the rest are compared. None for a short life."""
    if len(life.memory) < 6 * SAMPLES:
        return None
    warm = slice(len(life.memory) // 3, None)
    memory, files = life.memory[warm], life.files[warm]
    quarter = len(memory) // 4
    return Verdict(
        name=life.name,
        watched_s=len(life.memory) * SAMPLE_S,
        memory_mb=(
            statistics.median(memory[:quarter]) / 1e6,
            statistics.median(memory[-quarter:]) / 1e6,
        ),
        files=(max(files[:quarter]), min(files[-quarter:])),
        processes=(
            int(statistics.median(life.processes[warm][:quarter])),
            int(statistics.median(life.processes[warm][-quarter:])),
        ),
    )


class Watch:
    """A thread that samples the processes it was told of."""

    def __init__(self) -> None:
        self._living: dict[str, Life] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def begins(self, name: str, pid: int) -> None:
        """A new process of that name; the one before it is sampled no more."""
        with self._lock:
            self._living[name] = Life(name, psutil.Process(pid))

    def afresh(self) -> None:
        """Forget what was seen: only from now on is it judged."""
        with self._lock:
            for name, life in self._living.items():
                self._living[name] = Life(name, life.process)

    def verdicts(self) -> list[Verdict]:
        return [verdict for life in self._living.values() if (verdict := judge(life)) is not None]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += SAMPLE_S
            with self._lock:
                for life in self._living.values():
                    life.sample()


def table(verdicts: Sequence[Verdict]) -> str:
    rows = [
        f"{'process':<12}{'watched, s':>12}{'warm, MB':>11}{'end, MB':>11}{'growth':>9}{'files':>14}{'processes':>12}"
    ]
    for one in sorted(verdicts, key=lambda verdict: verdict.name):
        rows.append(
            f"{one.name:<12}{one.watched_s:>12.0f}{one.memory_mb[0]:>11.1f}{one.memory_mb[1]:>11.1f}"
            f"{one.growth:>9.1%}{f'{one.files[0]:.1f} to {one.files[1]:.1f}':>14}"
            f"{f'{one.processes[0]} to {one.processes[1]}':>12}{'' if one.holds else '   too much'}"
        )
    return "\n".join(rows)
