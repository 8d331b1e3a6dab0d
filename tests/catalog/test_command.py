import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from catalog import job_list, tenants
from catalog.__main__ import main
from catalog.database import transaction
from catalog.embedded.__main__ import main as embedded
from catalog.settings import Settings
from tests.conftest import another_database

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


@pytest.fixture
def environment(settings: Settings, engine: Engine, tmp_path: Path) -> dict[str, str]:
    """An installation in a folder of the test's own, on the suite's database."""
    return {"TAGSMITH_VAR": str(tmp_path), "TAGSMITH_DATABASE_URL": settings.resolved_database_url()}


def run(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


def test_a_key_is_printed_once_and_works(environment: dict[str, str], engine: Engine) -> None:
    result = run(environment, "key", "create", "--tenant", "acme", "--name", "laptop")
    assert result.exit_code == 0, result.output
    with transaction(engine) as session:
        tenant_id = tenants.authenticate(session, result.stdout.strip())
        assert tenant_id == tenants.create_tenant(session, "acme").id


@pytest.mark.parametrize("tenant", ["", " ", "a\nb", "\udcff", "x" * 201])
def test_a_tenant_has_a_name_that_can_be_listed(environment: dict[str, str], tenant: str) -> None:
    result = run(environment, "key", "create", "--tenant", tenant)
    assert result.exit_code == 2
    assert "--tenant" in result.output
    assert json.loads(run(environment, "key", "list", "--json").stdout) == []


@pytest.mark.parametrize("tenant", ["日本\u3000店", "Café\u00a0Paris", "👩\u200d💻"])
def test_a_tenant_has_any_name_of_one_line(environment: dict[str, str], tenant: str) -> None:
    assert run(environment, "key", "create", "--tenant", tenant).exit_code == 0
    (entry,) = json.loads(run(environment, "key", "list", "--tenant", tenant, "--json").stdout)
    assert entry["tenant"] == tenant
    assert run(environment, "key", "list", "--tenant", "\udcff").exit_code == 2


@pytest.mark.parametrize("command", [("key", "revoke"), ("job", "replay")])
def test_an_id_that_is_no_text_is_refused_in_words(
    environment: dict[str, str], command: tuple[str, str]
) -> None:
    result = run(environment, *command, "\udcff")
    assert (result.exit_code, "not valid UTF-8" in result.output) == (2, True)


def test_jobs_are_not_pruned_by_an_age_that_is_no_number(environment: dict[str, str]) -> None:
    result = run(environment, "job", "prune", "--older-than-days", "nan")
    assert (result.exit_code, "not a number" in result.output) == (2, True)


def test_keys_are_listed_without_being_shown_and_a_revoked_one_opens_nothing(
    environment: dict[str, str], engine: Engine
) -> None:
    leaked, kept = (
        run(environment, "key", "create", "--tenant", "leaky", "--name", name).stdout.strip()
        for name in ("leaked", "kept")
    )
    listed = run(environment, "key", "list", "--tenant", "leaky", "--json")
    ids = {entry["name"]: entry["id"] for entry in json.loads(listed.stdout)}
    assert set(ids) == {"leaked", "kept"}
    table = run(environment, "key", "list", "--tenant", "leaky").stdout
    assert ids["kept"] in table and "leaky" in table
    assert leaked not in listed.stdout + table

    assert run(environment, "key", "revoke", ids["leaked"]).exit_code == 0
    with transaction(engine) as session:
        assert tenants.authenticate(session, leaked) is None
        assert tenants.authenticate(session, kept) is not None
    again = run(environment, "key", "revoke", ids["leaked"])
    assert again.exit_code == 1
    assert "there is no key" in again.output


def test_prepare_writes_the_first_key_for_its_owner_only(
    environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    result = run(environment, "prepare")
    assert result.exit_code == 0, result.output
    file = tmp_path / "api-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with transaction(engine) as session:
        assert tenants.authenticate(session, file.read_text().strip()) is not None
    assert file.read_text().strip() not in result.output


def test_prepare_again_leaves_a_working_key_alone(environment: dict[str, str], tmp_path: Path) -> None:
    run(environment, "prepare")
    first = (tmp_path / "api-key").read_text()
    assert run(environment, "prepare").exit_code == 0
    assert (tmp_path / "api-key").read_text() == first


def test_prepare_replaces_a_key_that_the_database_does_not_know(
    environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "api-key").write_text("tsk_of_an_older_database\n")
    run(environment, "prepare")
    with transaction(engine) as session:
        assert tenants.authenticate(session, (tmp_path / "api-key").read_text().strip()) is not None


def test_replay_queues_a_failed_job_and_names_the_others(
    environment: dict[str, str], shop: object, engine: Engine
) -> None:
    _, job = shop.accept()  # type: ignore[attr-defined]
    shop.fail(shop.claim_one(job.id))  # type: ignore[attr-defined]
    result = run(environment, "job", "replay", job.id, "job_unknown")
    assert result.exit_code == 1
    assert job.id in result.stdout
    assert "job_unknown" in result.stderr
    with engine.connect() as connection:
        assert connection.execute(text("SELECT status FROM jobs")).scalar() == "queued"


def test_failed_jobs_are_listed_with_their_reason_and_replayed_together(
    environment: dict[str, str], shop: object, engine: Engine, make_tenant: Callable[[str], str]
) -> None:
    other = shop.of(make_tenant("other"))  # type: ignore[attr-defined]
    failed = []
    for seller in (shop, shop, other):
        _, job = seller.accept()  # type: ignore[attr-defined]
        seller.fail(seller.claim_one(job.id))  # type: ignore[attr-defined]
        failed.append(job.id)
    shop.accept()  # type: ignore[attr-defined]
    listed = json.loads(run(environment, "job", "list", "--json").stdout)
    assert [entry["id"] for entry in listed] == failed[::-1]
    assert {entry["reason"] for entry in listed} == {"made by a test"}
    of_one = run(environment, "job", "list", "--status", "failed", "--tenant", "other").stdout
    assert failed[2] in of_one and len(of_one.splitlines()) == 1
    assert len(run(environment, "job", "list", "--limit", "2").stdout.splitlines()) == 2

    assert run(environment, "job", "replay").exit_code == 2
    assert run(environment, "job", "replay", "--all-failed", "--tenant", "other").stdout.split() == [
        failed[2]
    ]
    shop.revise(shop.job(failed[0]).product_id, title="Another")  # type: ignore[attr-defined]
    assert run(environment, "job", "replay", "--all-failed").stdout.split() == [failed[1]]
    assert [entry["id"] for entry in json.loads(run(environment, "job", "list", "--json").stdout)] == failed[
        :1
    ]


def leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, f"{path} {name}")
    else:
        yield path, command


@pytest.mark.parametrize("group", [main, embedded], ids=["catalog", "catalog.embedded"])
def test_the_help_of_every_command_ends_with_an_example(group: click.Group) -> None:
    assert [
        path for path, command in leaves(group) if "python -m catalog" not in (command.epilog or "")
    ] == []


def test_a_dump_of_nothing_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    result = run({"TAGSMITH_VAR": str(tmp_path)}, "dump", str(tmp_path / "dump"))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_prune_removes_old_jobs_that_no_product_names(
    shop: "Shop", environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_list, "PART", 2)

    def revisions(title: str) -> tuple[str, str]:
        product, first = shop.accept(title)
        assert shop.finish(shop.claim_one(first.id))
        return first.id, shop.revise(product.id, title="Another")[1].id

    _, newest = revisions("tagged twice")
    assert shop.finish(shop.claim_one(newest))
    shown, cancelled = revisions("its change was cancelled")
    shop.cancel(cancelled)
    waited_for, queued = revisions("its change is queued")
    recent, current = revisions("tagged twice, and just now")
    assert shop.finish(shop.claim_one(current))
    product, _ = shop.accept("deleted")
    shop.delete(product.id)

    shop.sql(
        "UPDATE jobs SET finished_at = now() - interval '10 days' WHERE status <> 'queued' AND id <> :id",
        id=recent,
    )
    for days, removed in (("11", 0), ("9", 2), ("9", 0)):
        result = run(environment, "job", "prune", "--older-than-days", days)
        assert (result.exit_code, result.stdout) == (0, f"removed {removed} jobs\n")
    left = {newest, shown, cancelled, waited_for, queued, recent, current}
    assert {row.id for row in shop.sql("SELECT id FROM jobs")} == left
    tagged = {row.job_id for row in shop.sql("SELECT job_id FROM tags")}
    assert tagged == {newest, shown, waited_for, recent, current}


def test_a_database_that_is_away_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    result = run({"TAGSMITH_VAR": str(tmp_path)}, "prepare", "--wait-s", "0")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the database does not answer")
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_command_before_the_migration_is_one_line_and_exit_code_1(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    with another_database(engine, settings) as empty:
        environment = {"TAGSMITH_VAR": str(tmp_path), "TAGSMITH_DATABASE_URL": empty.resolved_database_url()}
        result = run(environment, "key", "create", "--tenant", "acme")
    assert result.exit_code == 1
    assert "run python -m catalog migrate" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_setting_is_one_line_and_exit_code_1() -> None:
    result = run({**os.environ, "TAGSMITH_PROT": "1"}, "migrate")
    assert (result.exit_code, "TAGSMITH_PROT" in result.stderr) == (1, True)
