"""An environment of its own for each peer that does not fit among our dependencies.

It holds what the lock beside this file pins, and sees our packages behind those: torch and the checkpoint's code are
the same, and where both have a package the peer's comes first. Kept inside the project's environment, and made again
when its lock changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
MARK = "made-from"  # the digest of the lock, written last


class PeerUnavailableError(Exception):
    """A peer cannot be run here, and why."""


def python_of(name: str, lock: Path, proof: str) -> Path:
    """The interpreter of the environment `name`, which holds what `lock` pins.

    `proof` is a module that must come from it and not from ours. Raises PeerUnavailableError.
    """
    folder = Path(sys.prefix) / "peers" / name
    python = folder / "bin" / "python"
    if not is_made(folder, lock):
        make(folder, lock)
    found = ran([os.fspath(python), "-c", f"import {proof}; print({proof}.__file__)"]).strip()
    if not Path(found).is_relative_to(folder):
        raise PeerUnavailableError(f"{name} would use {found} instead of its own {proof}: remove {folder}")
    return python


def is_made(folder: Path, lock: Path) -> bool:
    mark = folder / MARK
    return mark.exists() and mark.read_text(encoding="utf-8") == digest(lock)


def digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def make(folder: Path, lock: Path) -> None:
    """Raises PeerUnavailableError, mostly because the package index cannot be reached."""
    print(f"making an environment for {folder.name} ...", file=sys.stderr)
    uv = shutil.which("uv", path=os.fspath(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise PeerUnavailableError("uv is missing: make installs it, or pip install uv")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    ran([uv, "venv", "--quiet", "--python", sys.executable, os.fspath(folder)])
    python = folder / "bin" / "python"
    pinned = ("--require-hashes", "--only-binary", ":all:", os.fspath(lock))
    ran([uv, "pip", "sync", "--quiet", "--python", os.fspath(python), *pinned])
    own = ran([os.fspath(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    # A folder named in a .pth file comes after the environment's own packages.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(own) / "ours.pth").write_text("\n".join(sorted(ours)) + "\n", encoding="utf-8")
    (folder / MARK).write_text(digest(lock), encoding="utf-8")


def ran(command: list[str]) -> str:
    """What it printed. Raises PeerUnavailableError with what it said when it failed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    if done.returncode:
        raise PeerUnavailableError(f"{' '.join(command)} failed: {done.stderr.strip()[-800:]}")
    return done.stdout
