"""What the README says is compared with the code; its curl example is run in test_installation.py.

Other commands are parsed by the command they name and not run: they train on a catalogue that is not here.
"""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import SecretStr

from catalog.settings import PREFIX, Settings

PACKAGES = ("catalog", "web", "workers", "models", "training")


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def shown(default: Any) -> str:
    return "unset" if default is None or isinstance(default, SecretStr) else f"`{default}`"


def test_the_settings_table_is_the_settings(readme: str) -> None:
    rows = dict(re.findall(rf"^\| `({PREFIX}\w+)` \| (\S+) \|", readme, flags=re.MULTILINE))
    defaults = {
        PREFIX + name.upper(): shown(
            f"{field.default:g}" if isinstance(field.default, float) else field.default
        )
        for name, field in Settings.model_fields.items()
    }
    assert rows == defaults


def dotted_names(readme: str) -> list[str]:
    return sorted(set(re.findall(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`", readme)))


def test_every_function_that_the_request_path_names_exists(readme: str) -> None:
    names = dotted_names(readme)
    assert len(names) >= 10
    for name in names:
        resolve(name)


def resolve(name: str) -> object:
    """The module, class, function or method behind a dotted name; raises when there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module_name = ".".join(parts[:count])
        try:
            found: object = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise
            continue
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        return found
    raise AssertionError(f"{name} cannot be imported")


def test_every_file_that_the_tree_names_is_there(root: Path, readme: str) -> None:
    tree = readme.partition("## What is where")[2].split("```")[1]
    names = [line.split()[0] for line in tree.strip().splitlines()]
    assert names
    assert [name for name in names if not (root / name).exists()] == []


def test_every_make_command_exists(root: Path, readme: str) -> None:
    makefile = (root / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\w+)$", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`|TAGSMITH_\w+=\S+ )make (\w+)", readme, flags=re.MULTILINE))
    assert {"run", "test"} <= named
    assert named <= targets


def commands(readme: str) -> list[tuple[str, list[str]]]:
    """Each `python -m PACKAGE …` of a code block or a sentence: the package and its arguments."""
    lines = re.findall(r"^\.venv/bin/python -m (\w+) (.+)$", readme, flags=re.MULTILINE)
    inline = re.findall(r"`python -m (\w+) ([^`]+)`", readme)
    keys = [("catalog", arguments) for arguments in re.findall(r"`(key [^`]+)`", readme)]
    return [(package, shlex.split(arguments)) for package, arguments in lines + inline + keys]


def parse(package: str, arguments: list[str]) -> None:
    """Raises click's UsageError where the command line has a fault."""
    command: click.Command = importlib.import_module(f"{package}.__main__").main
    rest = list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise click.UsageError(f"{package} has no command {rest[0]!r}")
        command, rest = found, rest[1:]
    command.make_context(command.name, rest)


@pytest.fixture
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a reader's catalogue are not here: a path is taken as it is written."""
    monkeypatch.setattr(click.Path, "convert", lambda path, value, param, ctx: path.coerce_path_result(value))


@pytest.mark.usefixtures("any_path")
def test_every_python_command_is_understood(readme: str) -> None:
    named = commands(readme)
    assert {package for package, _ in named} == {"training", "models", "catalog", "workers"}
    for package, arguments in named:
        parse(package, arguments)


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize(
    "arguments", ["ft a.toml", "evaluate a b --prat test", "evaluate a b --part tset", "fit"]
)
def test_a_python_command_with_a_fault_is_not_understood(arguments: str) -> None:
    with pytest.raises(click.UsageError):
        parse("training", arguments.split())


def test_the_training_commands_name_recipes_that_are_there(root: Path, readme: str) -> None:
    recipes = re.findall(r"`(\w+\.toml)`|recipes/(\w+\.toml)", readme)
    names = {first or second for first, second in recipes} - {"pyproject.toml"}
    assert names >= {"finetune.toml", "base.toml", "chinese.toml", "starter.toml"}
    assert [name for name in names if not (root / "training" / "recipes" / name).is_file()] == []


def test_links_lead_somewhere(root: Path, readme: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert targets
    assert [target for target in targets if not (root / target).exists()] == []


def test_it_fits_on_a_few_screens(readme: str) -> None:
    assert len(readme.splitlines()) < 200
