"""What is served, health and metrics."""

import json
import os
import shutil
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import Engine

from catalog.checkpoint_files import checkpoint_version
from catalog.errors import DatabaseUnavailable
from catalog.settings import Settings
from tests.conftest import another_database
from tests.web.seller import Seller
from web import health, serving

TAXONOMY = {
    "attributes": [
        {"name": "kind", "multiple": False, "values": ["Shoe", "Shirt"]},
        {
            "name": "heel_height",
            "multiple": False,
            "values": ["Low", "High"],
            "applies_when": {"attribute": "kind", "values": ["Shoe"]},
        },
    ]
}


@pytest.fixture
def checkpoint(settings: Any) -> Path:
    folder: Path = settings.checkpoint
    folder.mkdir()
    for name, content in (
        ("config.json", {"format": 1, "name": "a stand-in"}), ("taxonomy.json", TAXONOMY),
        ("metrics.json", {"attributes": {"colour": {"fused": {"accuracy": 0.5}}}}),
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(content))
    return folder


def test_taxonomy_and_model_come_from_the_checkpoints_files(seller: Seller, checkpoint: Path) -> None:
    assert seller.get("/v1/taxonomy").json == TAXONOMY  # the scope of heel_height with it
    model = seller.get("/v1/model").json
    assert model["name"] == "a stand-in"
    assert model["version"] == checkpoint_version(checkpoint)
    assert model["metrics"]["attributes"]["colour"]["fused"]["accuracy"] == 0.5


def test_a_checkpoint_that_is_replaced_is_read_anew(seller: Seller, checkpoint: Path) -> None:
    before = seller.get("/v1/model").json["version"]
    (checkpoint / "metrics.json").write_text(json.dumps({"better": True}))
    after = seller.get("/v1/model").json
    assert after["version"] != before
    assert after["metrics"] == {"better": True}


@pytest.mark.parametrize(("name", "later_ns"), [("another 12", 10**9), ("of another length", 0)])
def test_a_file_that_is_replaced_shows_by_its_time_or_by_its_size(
    seller: Seller, checkpoint: Path, name: str, later_ns: int
) -> None:
    config = checkpoint / "config.json"
    before = config.stat()
    assert seller.get("/v1/model").json["name"] == "a stand-in"
    config.write_text(config.read_text().replace("a stand-in", name))
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns + later_ns))
    assert seller.get("/v1/model").json["name"] == name


def test_a_checkpoint_that_stays_as_it_is_is_read_once(
    seller: Seller, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is a hash of all its files."""
    read = Mock(side_effect=serving.read_checkpoint_info)
    monkeypatch.setattr(serving, "read_checkpoint_info", read)
    for path in ("/v1/model", "/v1/taxonomy", "/v1/model"):
        assert seller.get(path).status_code == 200
    assert read.call_count == 1


def test_a_link_that_is_moved_to_another_checkpoint_is_followed(
    seller: Seller, checkpoint: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    checkpoint.rename(old)
    shutil.copytree(old, new)  # the times and sizes of all files alike
    (new / "config.json").write_text((old / "config.json").read_text().replace("a stand-in", "another 12"))
    for name in (path.name for path in old.iterdir()):
        os.utime(new / name, ns=(0, 0))
        os.utime(old / name, ns=(0, 0))
    checkpoint.symlink_to(old)
    assert seller.get("/v1/model").json["name"] == "a stand-in"
    moved = tmp_path / "moved"
    moved.symlink_to(new)
    moved.replace(checkpoint)
    assert seller.get("/v1/model").json["name"] == "another 12"


def test_without_a_checkpoint_the_rest_goes_on(seller: Seller) -> None:
    for path in ("/v1/taxonomy", "/v1/model"):
        answer = seller.get(path)
        assert (answer.status_code, answer.json["type"]) == (503, "/problems/service-unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert seller.send(title="Shoes").status_code == 202


def test_the_process_lives_whatever_is_away(make_app: Callable[..., Flask]) -> None:
    away = make_app(broker_url=SecretStr("redis://127.0.0.1:1/0"))
    assert away.test_client().get("/healthz").json == {"status": "ok"}


def test_ready_needs_database_broker_and_a_worker(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = app.test_client()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json == {"ready": False, "database": True, "broker": True, "worker": False}
    monkeypatch.setattr(app.extensions["tagsmith"].broker, "probe", lambda: (True, True))
    assert client.get("/readyz").status_code == 200

    def away(engine: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(health.database, "check", away)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"ready": False, "database": False, "broker": True, "worker": True}


def test_a_broker_that_is_away_is_not_ready(make_app: Callable[..., Flask]) -> None:
    client = make_app(broker_url=SecretStr("redis://127.0.0.1:1/0")).test_client()
    assert client.get("/readyz").json == {"ready": False, "database": True, "broker": False, "worker": False}


def scraped(client: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_by_route_and_the_queue_by_lane(seller: Seller, jpeg: bytes) -> None:
    seller.send(jpeg, title="one")
    seller.send(title="two", lane="bulk")
    seller.get("/v1/products/prd_" + "0" * 32)
    samples = scraped(seller.client)
    route = (("method", "POST"), ("route", "/v1/products"), ("status", "202"))
    assert samples["tagsmith_http_requests_total", route] == 2
    missing = (("method", "GET"), ("route", "/v1/products/<product_id>"), ("status", "404"))
    assert samples["tagsmith_http_requests_total", missing] == 1
    assert samples["tagsmith_products_accepted_total", (("lane", "bulk"),)] == 1
    assert samples["tagsmith_photo_intake_seconds_count", ()] == 1
    assert samples["tagsmith_queue_jobs", (("lane", "interactive"),)] == 1
    assert samples["tagsmith_queue_oldest_age_seconds", (("lane", "bulk"),)] >= 0
    assert samples["tagsmith_database_up", ()] == 1
    assert not [name for name, _ in samples if name.endswith("_created")]


def test_metrics_say_how_fast_each_lane_is_worked_off(
    seller: Seller, finish_jobs: Callable[[str], None]
) -> None:
    finish_jobs(seller.send(title="one").json["job"]["id"])
    seller.send(title="two")
    seller.send(title="three", lane="bulk")
    samples = scraped(seller.client)
    assert samples["tagsmith_queue_finish_rate", (("lane", "interactive"),)] > 0
    assert ("tagsmith_queue_finish_rate", (("lane", "bulk"),)) not in samples  # unknown is not zero
    assert samples["tagsmith_running_jobs", (("lane", "bulk"),)] == 0


def test_a_scrape_survives_a_database_that_is_away(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    away = SecretStr(f"postgresql://nobody@/nothing?host={tmp_path}")
    samples = scraped(make_app(database_url=away).test_client())
    assert samples["tagsmith_database_up", ()] == 0
    assert ("tagsmith_queue_jobs", (("lane", "bulk"),)) not in samples


def test_a_database_whose_migration_was_forgotten_is_not_ready_and_says_what_to_do(
    make_app: Callable[..., Flask], engine: Engine, settings: Settings, api_key: str,
    quiet: list[MutableMapping[str, Any]],
) -> None:  # fmt: skip
    with another_database(engine, settings) as empty:
        client = make_app(database_url=empty.database_url).test_client()
        assert client.get("/readyz").json["database"] is False
        (warning,) = (entry for entry in quiet if entry["event"] == "database not ready")
        assert "python -m catalog migrate" in warning["reason"]
        assert scraped(client)["tagsmith_database_up", ()] == 0
        answer = client.get("/v1/products", headers={"Authorization": f"Bearer {api_key}"})
        assert (answer.status_code, answer.json["type"]) == (503, "/problems/service-unavailable")


def test_no_path_of_a_client_becomes_a_series(app: Flask) -> None:
    client = app.test_client()
    client.get("/one/of/a/million")
    client.open("/", method="BREW")
    names = {labels for name, labels in scraped(client) if name == "tagsmith_http_requests_total"}
    assert {dict(labels)["route"] for labels in names} <= {"unmatched", "/", "/metrics"}
    assert "BREW" not in {dict(labels)["method"] for labels in names}
