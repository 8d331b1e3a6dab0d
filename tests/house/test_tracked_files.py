"""The repository stands alone: no address of a package registry, no path of a machine, no large file."""

import re
import subprocess
from pathlib import Path

import pytest

# In pieces, so that this file does not name them either.
REGISTRY_HOSTS = [
    r"pypi\." + "org",
    "python" + r"hosted\.org",
    r"npmjs\." + "(org|com)",
    r"deb\." + r"debian\.org",
]
MACHINE_PATHS = [rf"(?<![\w.~/-])/{folder}/" for folder in ("home", "root", "work", "Users")]
LARGEST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout: there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True)
    return [root / name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


@pytest.mark.parametrize("pattern", REGISTRY_HOSTS + MACHINE_PATHS)
def test_no_tracked_text_names(root: Path, tracked: list[Path], pattern: str) -> None:
    found = []
    for path in tracked:
        content = path.read_bytes()
        if b"\0" not in content[:8000] and re.search(pattern, content.decode(errors="replace")):
            found.append(path.relative_to(root).as_posix())
    assert found == []


def test_only_the_shipped_weights_are_large(root: Path, tracked: list[Path]) -> None:
    large = [path.relative_to(root) for path in tracked if path.stat().st_size > LARGEST_BYTES]
    assert [path.as_posix() for path in large if path.parts[:2] != ("models", "starter")] == []


def test_state_and_environment_are_not_tracked(root: Path, tracked: list[Path]) -> None:
    top = {path.relative_to(root).parts[0] for path in tracked}
    assert not {"var", ".venv", ".env"} & top
