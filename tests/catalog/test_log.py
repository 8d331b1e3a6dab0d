import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from catalog.log import configure_logging
from catalog.settings import Settings


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("log_json", [True, False])
def test_neither_passwords_nor_keys_reach_the_log(log_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_json=log_json))
    structlog.get_logger("ours").info("connecting", url="postgresql://me:s3cret@db/tags")
    logging.getLogger("theirs").warning("key %s refused at redis://:s3cret@broker", "tsk_abcdefghijklmnop")
    try:
        raise ValueError("https://user:s3cret@host/path")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    printed = capsys.readouterr().err
    assert "s3cret" not in printed
    assert "abcdefghijklmnop" not in printed
    assert printed.count("***") >= 4


def test_json_logs_are_one_object_a_line_for_us_and_for_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_json=True))
    structlog.get_logger("ours").info("job_finished", job_id="job_1")
    logging.getLogger("theirs").warning("slow %s", "query")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["job_id"], ours["level"], ours["logger"]) == (
        "job_finished",
        "job_1",
        "info",
        "ours",
    )
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("slow query", "warning", "theirs")
    assert ours["timestamp"].endswith("Z")
