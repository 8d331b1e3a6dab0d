from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import SettingsError
from catalog.settings import PREFIX, Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_every_setting_has_a_default() -> None:
    settings = Settings.load()
    assert (settings.port, settings.lease_s, settings.max_batch) == (8000, 20, 32)


def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_PORT", "9001")
    monkeypatch.setenv("TAGSMITH_VAR", "/srv/tagsmith")
    settings = Settings.load()
    assert (settings.port, settings.var) == (9001, Path("/srv/tagsmith"))


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_DATABASE_URL", "")
    assert Settings.load().database_url is None


def test_an_unknown_variable_stops_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_PROT", "9001")
    with pytest.raises(SettingsError, match=r"unknown setting TAGSMITH_PROT: .*TAGSMITH_PORT"):
        Settings.load()


def test_an_unusable_value_stops_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_PORT", "many")
    with pytest.raises(SettingsError, match="TAGSMITH_PORT: Input should be a valid integer"):
        Settings.load()


WRONG = [
    ("DATABASE_URL", "hello", "postgresql://"),
    ("DATABASE_URL", "mysql://me:s3cret@db/tags", "postgresql://"),
    ("DATABASE_URL", "postgresql://me:s3cret@db:port/tags", "postgresql://"),
    ("BROKER_URL", "hello", "redis://"),
    ("BROKER_URL", "amqp://me:s3cret@broker", "redis://"),
    ("BROKER_URL", "redis://:s3cret@broker:port/0", "redis://"),
    ("PHOTO_STORE_URL", "photos", "file:///"),
    ("PHOTO_STORE_URL", "sdrive://s3cret@here", "Protocol not known"),
    ("SWEEP_INTERVAL_S", "inf", "finite number"),
    ("LEASE_S", "nan", "finite number"),
    ("FORWARD_TIMEOUT_S", "1e308", "less than or equal to 31536000"),
    ("MAX_PHOTOS", "99999999999999999999", "less than or equal to 2147483647"),
    ("MAX_WAITERS", "600", "less than or equal to 400"),
]


@pytest.mark.parametrize(
    ("name", "value", "advice"), WRONG, ids=[f"{name} {value}" for name, value, _ in WRONG]
)
def test_what_would_fail_later_and_unreadably_stops_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as refusal:
        Settings.load()
    said = str(refusal.value)
    assert said.startswith(f"unusable settings: {PREFIX}{name}: ")
    assert advice in said
    assert "s3cret" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://me:a#b?c@db:5433/tags?sslmode=require"),
        ("DATABASE_URL", "postgresql:///tags?host=/run/postgresql"),
        ("DATABASE_URL", "postgresql+psycopg://me@one,two/tags"),
        ("BROKER_URL", "rediss://:p%40ss@broker:6380/1"),
        ("BROKER_URL", "redis+socket:///run/redis.sock"),
        ("BROKER_URL", "sentinel://one:26379;sentinel://two:26379"),
        ("PHOTO_STORE_URL", "file:///srv/photos"),
        ("PHOTO_STORE_URL", "memory://photos"),
    ],
)
def test_urls_that_can_be_used_are_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    Settings.load()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_a_password_appears_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_DATABASE_URL", "postgresql://me:s3cret@db/tags")
    monkeypatch.setenv("TAGSMITH_BROKER_URL", "redis://:s3cret@broker/0")
    settings = Settings.load()
    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.resolved_database_url() == "postgresql+psycopg://me:s3cret@db/tags"
    assert settings.resolved_broker_url() == "redis://:s3cret@broker/0"


def test_a_password_appears_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSMITH_DATABASE_URL", "postgresql://me:s3cret@db/tags")
    monkeypatch.setenv("TAGSMITH_MAX_BATCH", "0")
    with pytest.raises(SettingsError) as refusal:
        Settings.load()
    assert "s3cret" not in str(refusal.value)
    assert refusal.value.__suppress_context__


def test_without_urls_everything_lives_under_var(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path)
    assert str(tmp_path) in settings.resolved_photo_store_url()
    assert settings.resolved_database_url().startswith("postgresql+psycopg://tagsmith@/tagsmith?host=")
    assert settings.resolved_broker_url().startswith("redis+socket:///")
