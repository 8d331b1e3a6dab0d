"""Print the part of requirements.lock that some extras of the project need, with its hashes.

    python docker/select_pins.py web local            # the pins of `tagsmith[web,local]`
    python docker/select_pins.py worker --device cpu   # without what only a GPU can use

One lock pins everything, so an image that needs a part of it takes that part and resolves nothing anew. The
"# via" notes of the lock say who needs each pin; following them downwards from the project's own requirements
gives the part. Reads pyproject.toml and requirements.lock of the current folder; needs Python 3.11 alone.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

PROJECT = "tagsmith"
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==")

# The torch of the registry links most of CUDA and cannot be imported without it; these it does without.
GPU_ONLY = {"cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "nvidia-cuda-cccl", "nvidia-nvtx", "triton"}


def canonical(requirement: str) -> str:
    """The name in a requirement such as `psycopg[binary]>=3.3`, as the lock writes it."""
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def own_requirements(pyproject: str, extras: list[str]) -> set[str]:
    """Names that the project itself asks for, with those of the extras and of the extras they include."""
    project = tomllib.loads(pyproject)["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    names = {canonical(requirement) for requirement in project["dependencies"]}
    waiting = list(extras)
    seen: set[str] = set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        if extra not in optional:
            raise SystemExit(f"no extra {extra!r} in pyproject.toml: choose of {', '.join(sorted(optional))}")
        for requirement in optional[extra]:
            if included := re.match(rf"{PROJECT}\[(.*)\]", requirement):
                waiting.extend(name.strip() for name in included[1].split(","))
            else:
                names.add(canonical(requirement))
    return names


def read_lock(lock: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """From each pin's name to its lines (the pin and its hashes), and to the names of those who need it."""
    lines: dict[str, list[str]] = {}
    needed_by: dict[str, set[str]] = {}
    name = ""
    for line in lock.splitlines():
        if match := PIN.match(line):
            name = match[1]
            lines[name], needed_by[name] = [], set()
        if not name:
            continue
        if line.lstrip().startswith("#"):
            if parent := line.strip("# ").removeprefix("via").strip():
                needed_by[name].add(canonical(parent))
        else:
            lines[name].append(line)
    return {name: "\n".join(block) for name, block in lines.items()}, needed_by


def select(lock: str, pyproject: str, extras: list[str], device: str) -> list[str]:
    """The blocks of the lock, in its order."""
    blocks, needed_by = read_lock(lock)
    wanted = own_requirements(pyproject, extras)
    if unknown := wanted - blocks.keys():
        raise SystemExit(f"requirements.lock does not pin {', '.join(sorted(unknown))}: make the lock anew")
    while more := {name for name in blocks.keys() - wanted if needed_by[name] & wanted}:
        wanted |= more
    if device == "cpu":
        wanted -= GPU_ONLY
    return [block for name, block in blocks.items() if name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print the pins that some extras need.",
        epilog="Example: python docker/select_pins.py worker --device cpu > pins.txt",
    )
    parser.add_argument("extras", nargs="+", metavar="EXTRA")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    arguments = parser.parse_args()
    lock = Path("requirements.lock").read_text(encoding="utf-8")
    pyproject = Path("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join(select(lock, pyproject, arguments.extras, arguments.device)) + "\n")


if __name__ == "__main__":
    main()
