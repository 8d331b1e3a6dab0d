"""What both embedded servers need from the operating system: one at a time, folders of their own, an account.

Knows neither server. Linux only, like the wheels the servers come from.
"""

import ctypes
import fcntl
import os
import pwd
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP, SECBIT_KEEP_CAPS = 1 << 2, 1 << 4
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class EmbeddedError(Exception):
    """The server cannot run here; the message says what to do."""


@dataclass(frozen=True)
class Account:
    """The system account a server runs under."""

    name: str
    uid: int
    gid: int


def say(message: str) -> None:
    """One line to the log of this process."""
    print(f"embedded: {message}", file=sys.stderr, flush=True)


def hold_lock(path: Path, wait_s: float) -> int:
    """Takes the lock file, so that two starters of one server never meet; returns its descriptor.

    The lock belongs to the descriptor: the kernel frees it when its last holder is gone, however it went, so a
    file left behind by a killed process locks nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise EmbeddedError(
                    f"another process runs this server already (it holds {path}); stop it, or set TAGSMITH_VAR "
                    "to another folder"
                ) from None
            time.sleep(0.1)


def socket_folder(path: Path, account: Account) -> None:
    """Makes the private folder of a socket in the folder of all sockets, which may lie where everybody makes folders.

    There somebody else may have been first: whoever may write to the outer folder may put another in the inner one's
    place, whoever owns that one.
    """
    outer = path.parent
    outer.mkdir(mode=0o711, parents=True, exist_ok=True)
    if outer.parent.stat().st_mode & stat.S_IWOTH and _owned(outer, account).st_mode & OTHERS_MAY_WRITE:
        raise EmbeddedError(
            f"others than its owner may write to {outer}; remove it or set TAGSMITH_VAR to another folder"
        )
    private_folder(path, account)


def private_folder(path: Path, account: Account) -> None:
    """Makes the folder for the account alone; refuses one that somebody else put there.

    Nobody else may enter it, and that is what guards the socket inside: the servers ask for no password.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = _owned(path, account)
    if found.st_uid != account.uid:
        os.chown(path, account.uid, account.gid)
    path.chmod(0o700)


def _owned(path: Path, account: Account) -> os.stat_result:
    """What `lstat` says of the folder; refuses one of somebody else, and a link to one."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), account.uid):
        raise EmbeddedError(
            f"{path} belongs to somebody else; remove it or set TAGSMITH_VAR to another folder"
        )
    return found


def own_account() -> Account:
    """The account of this process."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(name, uid, os.getegid())


def unprivileged_account(var: Path) -> Account:
    """For a server that refuses to be root: the owner of `var` where that is a plain user, else `nobody`."""
    if os.geteuid() != 0:
        return own_account()
    candidates: list[Callable[[], pwd.struct_passwd]] = [lambda: pwd.getpwnam("nobody")]
    if var.stat().st_uid != 0:
        candidates.insert(0, lambda: pwd.getpwuid(var.stat().st_uid))
    for candidate in candidates:
        try:
            entry = candidate()
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root and this machine has no account `nobody`; run as a plain user, or set "
        "TAGSMITH_DATABASE_URL"
    )


def become(account: Account, *, dies_with_parent: int | None) -> Callable[[], None]:
    """What a child does between fork and exec: takes the account and, if asked, a signal for its parent's death.

    Coming from root, the child keeps the right to read: the project may lie in a folder that only root may enter,
    such as /root, and opening that to everybody would be worse.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()
    changes = os.geteuid() == 0 and account.uid != 0

    def in_child() -> None:
        if changes:
            # Or else access(2), by which initdb looks for its own programs, answers as if nothing had been kept.
            if libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS, 0, 0, 0) != 0:
                libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            _keep_right_to_read(libc)
            os.environ["HOME"] = "/"
        if dies_with_parent is not None:
            # After the change of account, which clears it.
            libc.prctl(PR_SET_PDEATHSIG, dies_with_parent, 0, 0, 0)
            if os.getppid() != parent:  # the parent died before the line above
                os.kill(os.getpid(), signal.SIGKILL)

    return in_child


def _keep_right_to_read(libc: ctypes.CDLL) -> None:
    """Leaves one capability, and makes it survive the exec. A container may have taken either, so tries both."""

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    class Data(ctypes.Structure):
        _fields_ = [
            ("effective", ctypes.c_uint32),
            ("permitted", ctypes.c_uint32),
            ("inheritable", ctypes.c_uint32),
        ]

    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        sets = (Data * 2)()
        sets[0] = Data(1 << capability, 1 << capability, 1 << capability)
        header = Header(LINUX_CAPABILITY_VERSION_3, 0)
        if libc.capset(ctypes.byref(header), ctypes.byref(sets)) == 0:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return
