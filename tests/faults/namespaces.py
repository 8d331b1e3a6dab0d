"""Machines of their own on one network, made of network namespaces: nothing outside them can be reached or reaches in.

    client   web   redis   postgres   worker-1   worker-2      one address each
       └──────┴──────┴────────┴──────────┴──────────┘          a bridge in a namespace that holds nothing else

Each namespace lives as long as a process of ours that sleeps in it, so nothing is left behind. Needs the right to make
network namespaces and the `ip` program.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.installation import wait_for

CLONE_NEWNET = 0x40000000


class CannotIsolate(Exception):
    """Says what this machine does not let us do."""


class Network:
    def __init__(self, names: Sequence[str]) -> None:
        self.address = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._sleepers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._make("bridge")
            with self.inside("bridge"):
                _ip("link", "add", "bridge", "type", "bridge")
                _ip("link", "set", "bridge", "up")
            for name, address in self.address.items():
                self._make(name)
                with self.inside("bridge"):
                    sleeper = str(self._sleepers[name].pid)
                    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", sleeper)
                    _ip("link", "set", name, "up")
                self.heal(name)
                with self.inside(name):
                    _ip("link", "set", "lo", "up")
                    _ip("address", "add", f"{address}/24", "dev", "eth0")
                    _ip("link", "set", "eth0", "up")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, and what it starts or connects meanwhile, is on that machine."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Path(f"/proc/{self._sleepers[name].pid}/ns/net").open("rb") as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def cut(self, name: str) -> None:
        """The machine's packets go nowhere from now on, and nobody is told."""
        with self.inside("bridge"):
            _ip("link", "set", name, "nomaster")

    def heal(self, name: str) -> None:
        with self.inside("bridge"):
            _ip("link", "set", name, "master", "bridge")

    def _make(self, name: str) -> None:
        unshare = shutil.which("unshare")
        if unshare is None or shutil.which("ip") is None:
            raise CannotIsolate("no `unshare` or no `ip` here")
        sleeper = subprocess.Popen([unshare, "--net", "sleep", "infinity"], stderr=subprocess.DEVNULL)
        self._sleepers[name] = sleeper
        ours = Path("/proc/self/ns/net").readlink()

        def entered() -> bool:
            if sleeper.poll() is not None:
                raise CannotIsolate("the kernel forbids network namespaces to this user")
            return Path(f"/proc/{sleeper.pid}/ns/net").readlink() != ours

        wait_for(entered, "a namespace")

    def _close(self) -> None:
        for sleeper in self._sleepers.values():
            sleeper.kill()
            sleeper.wait()


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise CannotIsolate(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotIsolate(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
