"""One installation of real servers for the fault tests, and the report of what each fault came to.

`make test` runs the short form. What takes minutes is marked `long` and runs with `--long`, as in `make faults`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.installation import SHORT_TIMES, Installation
from tests.faults.report import Fault, Report

REPORT = pytest.StashKey[Report]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make faults"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash.get(REPORT, None)
    if report is None:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(report.table())
    path = config.getoption("--faults-json")
    if path is not None:
        report.write(path)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash.setdefault(REPORT, Report())


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(scope="session")
def fault_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("var"), **SHORT_TIMES)
    try:
        made.start_postgres()
        made.start_redis()
        made.prepare()
        yield made
    finally:
        made.close()


@pytest.fixture
def installation(fault_servers: Installation, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """The servers, empty, and without a worker: each test starts and ends its own."""
    fault_servers.new_tenant(request.node.name)
    yield fault_servers
    fault_servers.kill_workers()
    fault_servers.cancel_what_is_left()
    fault_servers.empty_the_broker()


@pytest.fixture
def fault(installation: Installation, report: Report) -> Fault:
    return Fault(installation, report)
