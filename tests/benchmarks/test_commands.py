"""The commands of all benchmarks: found by their modules, with two ways out."""

import json
import pkgutil

import click
import pytest
from click.testing import CliRunner

from benchmarks import commands
from benchmarks.__main__ import main
from benchmarks.command_line import result_options, show, told
from benchmarks.headline import headline
from benchmarks.installation import NotRunningError

NAMES = [module.name for module in pkgutil.iter_modules(commands.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_commands_is_a_command_that_explains_itself(name):
    result = CliRunner().invoke(main, [name.replace("_", "-"), "--help"])
    assert result.exit_code == 0, result.output
    assert "--json" in result.output and "--out" in result.output
    last = " ".join(result.output.rpartition("\n\n")[2].split())
    assert last.startswith(f"Example: python -m benchmarks {name.replace('_', '-')} ")


def test_a_command_that_is_not_there_is_a_usage_error():
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2


@click.command
@result_options
def answer(as_json, out):
    with told():
        show({"answer": 42}, lambda document: f"answer {document['answer']}", as_json=as_json, out=out)


def test_a_result_is_a_table_or_json_and_the_file_is_always_json(tmp_path):
    assert CliRunner().invoke(answer, ["--out", str(tmp_path / "a.json")]).output == "answer 42\n"
    assert json.loads((tmp_path / "a.json").read_text()) == {"answer": 42}
    assert json.loads(CliRunner().invoke(answer, ["--json"]).output) == {"answer": 42}


def test_what_may_go_wrong_is_a_line():
    with pytest.raises(click.ClickException, match="start it"), told():
        raise NotRunningError("start it")
    with pytest.raises(ZeroDivisionError), told():
        _ = 1 / 0


def test_a_headline_says_how_far_its_rounds_are_apart_and_which_way_its_goal_lies():
    line = headline("ratio", 0.9, each=[0.8, 0.9, 0.95], goal=0.85)
    assert line["range"] == [0.8, 0.95] and line["goal_is"] == "at least"
    assert headline("ms", 3, goal=5, at_most=True)["goal_is"] == "at most"
    assert headline("ms", 3)["goal_is"] is None
