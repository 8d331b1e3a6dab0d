import re
import subprocess
from pathlib import Path


def targets(root: Path) -> set[str]:
    return set(re.findall(r"^\.PHONY: (\w+)$", (root / "Makefile").read_text(), flags=re.MULTILINE))


def test_the_makefile_has_the_documented_targets(root: Path) -> None:
    assert targets(root) >= {"run", "test", "check", "bench", "help"}


def test_help_lists_every_target(root: Path) -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=root, check=True, capture_output=True, text=True
    )
    assert {line.split()[1] for line in said.stdout.splitlines()} == targets(root)


def test_a_bare_make_is_help(root: Path) -> None:
    bare = subprocess.run(
        ["make", "--no-print-directory"], cwd=root, check=True, capture_output=True, text=True
    )
    assert bare.stdout.startswith("make help")


def test_every_target_but_help_sets_itself_up(root: Path) -> None:
    text = (root / "Makefile").read_text()
    for target in targets(root) - {"help"}:
        assert re.search(rf"^{target}: \.venv/installed\b", text, flags=re.MULTILINE), target
