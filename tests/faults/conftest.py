"""One installation of real servers for the fault tests, and the report of what each fault came to.

`make test` runs the short form. What takes minutes is marked `long` and runs with `--long`, as in `make faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest

from tests.faults.fault import Fault
from tests.faults.installation import SHORT_TIMES, Installation
from tests.faults.report import PROPERTY, Report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make faults"))


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Iterator[Report]:
    """Of this test; `tests/conftest.py` makes one table of all."""
    made = Report()
    yield made
    for line in made.lines:
        record_property(PROPERTY, asdict(line))


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
