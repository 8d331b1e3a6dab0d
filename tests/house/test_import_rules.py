import subprocess
import sys
from pathlib import Path


def test_the_import_rules_hold(root: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    linted = subprocess.run([*command, "--no-cache"], cwd=root, check=False, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "0 broken" in linted.stdout
