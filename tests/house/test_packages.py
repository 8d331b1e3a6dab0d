"""An installed Tagsmith has every module that a checkout has."""

import tomllib
from pathlib import Path


def test_every_folder_of_modules_is_installed(root: Path) -> None:
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    roots = {name for name in packages if "." not in name}
    folders = {path.parent.relative_to(root) for name in roots for path in (root / name).rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} - set(packages) == set()
