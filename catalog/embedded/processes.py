"""The processes of this machine, who holds a lock file, and the end of those that have lost their parent.

Reads what Linux tells in proc(5). Knows no installation.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path


def processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return []


def own_children() -> list[int]:
    children = []
    for pid in processes():
        with suppress(OSError):  # it has ended since the folder was listed
            # Behind the command, which is in parentheses and may contain anything: its state and its parent.
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                children.append(pid)
    return children


def is_held(lock: Path) -> bool:
    """Whether somebody holds the lock file; nobody does where it is not there."""
    with suppress(FileNotFoundError), lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holders(lock: Path) -> set[int]:
    """Of the lock file, as far as this process may see them."""
    inode = str(lock.stat().st_ino)
    return {
        int(pid)
        for _, kind, *_, pid, place, _, _ in map(str.split, Path("/proc/locks").read_text().splitlines())
        if kind == "FLOCK" and place.rpartition(":")[2] == inode and int(pid) > 0
    }


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """The child's exit status. Takes all others that end until then: none of them stays as a zombie."""
    while process.returncode is None:
        pid, status = os.waitpid(-1, 0)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


def stop_children(last: Collection[int], patience_s: float) -> None:
    """Ends all that are children of this process: asks each once, and in the end kills. Those of `last` are asked when
    no other is left.
    """
    asked: set[int] = set()
    give_up_at = time.monotonic() + patience_s
    with suppress(ChildProcessError):  # none is left
        while True:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            late = time.monotonic() > give_up_at
            # One that ends may leave children, which are ours from then on.
            children = own_children()
            for pid in children if late else [pid for pid in children if pid not in last] or children:
                if late or pid not in asked:
                    asked.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(0.1)
