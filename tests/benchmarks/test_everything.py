"""All benchmarks in one go: one table, one file, and a failure that does not stop the others."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import everything
from benchmarks.__main__ import main
from benchmarks.everything import (
    StepFailedError,
    failed,
    goal,
    in_a_process,
    measure,
    number,
    path_of,
    reason,
    table,
)
from benchmarks.headline import headline
from benchmarks.plan import STEPS, Step

MACHINE = {"processor": "an abacus", "cores": 2, "memory_gb": 1.0, "load_1m": 0.0}
STEPS_OF_TWO = (Step("first", "one", ("--products", "9"), ("--products", "1")), Step("second", "two"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(everything, "gpu", lambda: everything.NOT_MEASURED)


def answered(arguments):
    return {
        "asked": list(arguments),
        "headline": [headline("speed", 2.0, unit="times", each=[1.5, 2.5], goal=1.3)],
    }


def broken(arguments):
    if arguments[0] == "one":
        raise StepFailedError("no network")
    return answered(arguments)


def test_a_trial_adds_options_that_win():
    *_, document = measure(STEPS_OF_TWO, MACHINE, quick=True, run=answered)
    assert document["benchmarks"]["first"]["asked"] == ["one", "--products", "9", "--products", "1"]
    *_, document = measure(STEPS_OF_TWO, MACHINE, quick=False, run=answered)
    assert document["benchmarks"]["first"]["asked"] == ["one", "--products", "9"]


def test_one_that_fails_is_told_with_its_reason_and_the_others_go_on():
    *_, document = measure(STEPS_OF_TWO, MACHINE, quick=False, run=broken)
    assert failed(document) == ["first"]
    assert document["benchmarks"]["second"]["asked"] == ["two"]
    said = table(document)
    assert "first: FAILED: no network" in said
    assert "speed, times" in said and "at least 1.3: reached" in said
    assert "GPU: not measured: no CUDA device" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (headline("a", 0.9, goal=0.95), "at least 0.95: MISSED"),
        (headline("a", 0.95, goal=0.95), "at least 0.95: reached"),
        (headline("a", 6, goal=5, at_most=True), "at most 5: MISSED"),
        (headline("a", 6), ""),
    ],
)
def test_a_goal_is_reached_or_missed(line, said):
    assert goal(line) == said


def test_figures_are_short_and_whole_where_they_are_large():
    assert [number(value) for value in (0.98765, 12.345, 123.45, 12345.6, "")] == [
        "0.988",
        "12.3",
        "123.5",
        "12346",
        "",
    ]


def test_the_file_is_named_by_day_and_device(tmp_path):
    whole = {step.name: {} for step in STEPS}
    document = {
        "at": "2026-01-02T03:04:05+00:00", "gpu": everything.NOT_MEASURED, "quick": False, "benchmarks": whole
    }  # fmt: skip
    assert path_of(tmp_path, document).name == "2026-01-02-cpu.json"
    assert path_of(tmp_path, document | {"gpu": {"name": "a card"}}).name == "2026-01-02-gpu.json"
    assert path_of(tmp_path, document | {"quick": True}).name == "2026-01-02-cpu-trial.json"
    broken = {**whole, "latency": {"failed": "no network"}}
    assert path_of(tmp_path, document | {"benchmarks": broken}).name == "2026-01-02-cpu-part.json"
    assert path_of(tmp_path, document | {"benchmarks": {"latency": {}}}).name == "2026-01-02-cpu-part.json"


def test_of_a_run_that_is_stopped_the_file_has_what_was_found_until_then(tmp_path, monkeypatch):
    def stopped_at_the_second(arguments):
        if arguments[0] != STEPS[0].command:
            raise KeyboardInterrupt
        return answered(arguments)

    monkeypatch.setattr(everything, "in_a_process", stopped_at_the_second)
    asked = ["all", "--results", str(tmp_path)]
    assert CliRunner().invoke(main, asked).exit_code == 1
    (part,) = tmp_path.iterdir()
    assert part.name.endswith("-part.json")
    assert list(json.loads(part.read_text())["benchmarks"]) == [STEPS[0].name]
    monkeypatch.setattr(everything, "in_a_process", answered)
    assert CliRunner().invoke(main, [*asked, "--quick"]).exit_code == 0
    assert part.exists(), "a trial replaces nothing"
    assert CliRunner().invoke(main, asked).exit_code == 0
    assert not part.exists()
    assert sorted(path.name.partition("cpu")[2] for path in tmp_path.iterdir()) == ["-trial.json", ".json"]


def test_the_command_writes_its_file_and_ends_with_1_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(everything, "in_a_process", broken)
    result = CliRunner().invoke(main, ["all", "--only", "latency", "--results", str(tmp_path / "results")])
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "results").iterdir()
    assert json.loads(path.read_text())["benchmarks"]["latency"]["asked"] == ["latency"]
    monkeypatch.setattr(everything, "in_a_process", lambda _: broken(["one"]))
    result = CliRunner().invoke(main, ["all", "--only", "latency", "--results", str(tmp_path / "results")])
    assert result.exit_code == 1 and "latency: FAILED: no network" in result.output


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_options_of_every_step_are_understood(step):
    for options in (step.options, step.options + step.quick):
        result = CliRunner().invoke(main, [step.command, *options, "--help"])
        assert result.exit_code == 0, result.output
    command = main.get_command(None, step.command)
    command.make_context(step.command, [*step.options, *step.quick])


def test_a_process_that_fails_gives_what_click_said_last():
    with pytest.raises(StepFailedError, match="No such option"):
        in_a_process(["latency", "--nothing"])


def test_a_process_that_takes_too_long_is_ended_and_told(monkeypatch):
    monkeypatch.setattr(everything, "LIMIT_S", 0)
    with pytest.raises(StepFailedError, match="not done in 0 minutes"):
        in_a_process(["latency", "--help"])


def test_a_message_of_several_lines_is_told_whole():
    assert reason(1, "round 0\nError: no network:\ntry again\n") == "no network:\ntry again"


def test_without_a_message_the_reason_is_the_last_lines():
    assert (
        reason(1, "a\nb\nTraceback\nZeroDivisionError: by 0\n")
        == "status 1: b / Traceback / ZeroDivisionError: by 0"
    )
    assert reason(-15, "busy") == "ended by SIGTERM: busy"
