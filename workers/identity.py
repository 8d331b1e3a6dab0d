"""Names a worker process, and tells whether a named one of this machine is dead. Knows no job."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def worker_identity() -> str:
    """`machine:pid:start`: names this process and no later one that is given the same pid."""
    return f"{_machine()}:{os.getpid()}:{_start_ticks(os.getpid())}"


def node_name(name: str) -> str:
    """Celery's name of this process, where `name` is what all workers of the machine are called: replies are known by
    it alone. The pid is for whoever looks for the process; the hash tells containers apart that share a host's name.
    """
    return f"{name}-{os.getpid()}-{hashlib.sha256(worker_identity().encode()).hexdigest()[:8]}"


def is_dead(identity: str) -> bool:
    """Whether the worker ran on this machine and is gone. False for one of another machine: nobody here knows."""
    machine, _, process = identity.rpartition(":")[0].rpartition(":")
    if machine != _machine() or not process.isdecimal():
        return False
    return str(_start_ticks(int(process))) != identity.rpartition(":")[2]


def is_alive(identity: str) -> bool:
    """Whether the worker runs on this machine, and in this container."""
    machine, _, process = identity.rpartition(":")[0].rpartition(":")
    return machine == _machine() and process.isdecimal() and not is_dead(identity)


def _machine() -> str:
    """`host:boot:namespace`. Two machines, and two containers, may have the same host name; a pid means something in
    its own namespace only.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return f"{socket.gethostname()}:{boot}:{namespace}"


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 22 of proc(5), counted behind the command, which is in parentheses and may contain anything.
    return int(stat.rpartition(")")[2].split()[19])
