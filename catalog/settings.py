"""The settings of one process: read once from the environment, frozen, passed down.

Knows the names, units and limits; opens nothing. URLs may hold passwords, so they are secrets here and are
unwrapped only by the `resolved_…` methods, whose results must not be logged.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from catalog.embedded import postgres_url, redis_url
from catalog.errors import SettingsError

PREFIX = "TAGSMITH_"
# More is a mistake, and far more breaks what is counted or waited for: clocks, and PostgreSQL's integers.
Seconds = Annotated[float, Field(le=365 * 86_400)]
Count = Annotated[int, Field(le=2**31 - 1)]

DRIVER = "postgresql+psycopg"
BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")


class Settings(BaseSettings):
    """Every setting is the environment variable TAGSMITH_<NAME IN CAPITALS>."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, allow_inf_nan=False
    )

    # Where things are. An unset URL means the server or folder of our own under `var`.
    var: Path = Path("var")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    database_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    broker_master: str = "mymaster"  # what sentinels call the Redis they watch
    photo_store_url: SecretStr | None = None
    database_pool: Count = Field(default=16, ge=1)  # connections of one process; PostgreSQL allows 100 in all
    log_json: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9464, ge=0, le=65535)  # the worker's

    # The model.
    checkpoint: Path = Path("models/starter")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_batch: Count = Field(default=32, ge=1)
    max_batch_tokens: Count = Field(default=8192, ge=1)
    max_ready: Count = Field(
        default=256, ge=1
    )  # prepared jobs waiting for the device; full means back-pressure
    forward_timeout_s: Seconds = Field(default=50, gt=0)
    bulk_forward_s: Seconds = Field(default=0.07, gt=0)  # of bulk while people send products as well

    embedding_cache_days: float = Field(default=30, ge=0, le=36_500)  # of photos and texts; 0 keeps none

    # The life of a job.
    lease_s: Seconds = Field(default=20, gt=0)  # renewed while the worker lives; what a lost machine costs
    max_attempts: Count = Field(default=5, ge=1)
    retry_delay_s: Seconds = Field(default=5, ge=0)
    resend_after_s: Seconds = Field(default=15, ge=0)
    sweep_interval_s: Seconds = Field(default=5, gt=0)
    sweep_limit: Count = Field(
        default=2000, ge=1
    )  # jobs of one lane that one sweep sends: under a second of work
    max_queued_interactive: Count = Field(default=10_000, ge=0)
    max_queued_bulk: Count = Field(default=1_000_000, ge=0)

    # What intake takes.
    max_title_chars: Count = Field(default=500, ge=1)
    max_description_chars: Count = Field(default=20_000, ge=1)
    max_external_id_chars: Count = Field(default=200, ge=1)
    max_photos: Count = Field(default=8, ge=0)
    max_photo_bytes: Count = Field(default=10_000_000, ge=1)
    max_request_bytes: Count = Field(default=64_000_000, ge=1)
    max_photo_pixels: Count = Field(default=50_000_000, ge=1)
    model_view_side: Count = Field(default=320, ge=32)
    # Requests of one process that may hold a `wait` open: a thread and a connection each, of 500 (web/gunicorn.py).
    max_waiters: int = Field(default=16, ge=0, le=400)
    idempotency_ttl_s: Seconds = Field(default=86_400, gt=0)
    idempotency_lock_s: Seconds = Field(default=60, gt=0)  # a request that died frees its key after this long

    @field_validator("database_url")
    @classmethod
    def _names_a_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            from sqlalchemy import make_url  # whoever is given a database has loaded it, or will
            from sqlalchemy.exc import ArgumentError

            try:
                driver = make_url(_with_driver(url.get_secret_value())).drivername
            except (ArgumentError, ValueError):  # from None: both repeat the URL
                raise ValueError("is no URL: give postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None
            if driver != DRIVER:
                raise ValueError("is no PostgreSQL: give postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
        return url

    @field_validator("broker_url")
    @classmethod
    def _names_a_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            for each in url.get_secret_value().split(";"):  # of a sentinel there may be several
                try:
                    parts = urlsplit(each)
                    usable = parts.scheme in BROKER_SCHEMES and parts.port != 0
                except ValueError:  # its port; from None: it repeats the URL
                    usable = False
                if not usable:
                    raise ValueError("is no Redis: give redis://:PASSWORD@HOST:PORT/0") from None
        return url

    @field_validator("photo_store_url")
    @classmethod
    def _names_a_store(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            from fsspec import get_filesystem_class

            protocol, separator, _ = url.get_secret_value().partition("://")
            if not separator:
                raise ValueError(
                    "is no URL: give file:///FOLDER, s3://BUCKET/FOLDER or another one of fsspec"
                )
            try:
                get_filesystem_class(protocol.partition("::")[0])
            except (ImportError, ValueError) as error:
                raise ValueError(
                    f"cannot be used ({error}): install the protocol's package, or give another URL"
                ) from None
        return url

    @classmethod
    def load(cls) -> Self:
        """Reads the environment; raises SettingsError naming every variable that cannot be used."""
        known = {PREFIX + name.upper() for name in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name not in known)
        if unknown:
            raise SettingsError(
                f"unknown setting {', '.join(unknown)}: unset it or correct the name; "
                f"known settings are {', '.join(sorted(known))}"
            )
        try:
            return cls()
        except ValidationError as error:
            # Only names and reasons: the input may be a URL with a password in it.
            reasons = [
                f"{PREFIX + '_'.join(map(str, fault['loc'])).upper() if fault['loc'] else 'settings'}: "
                f"{fault['msg'].removeprefix('Value error, ')}"
                for fault in error.errors(include_input=False, include_context=False)
            ]
            raise SettingsError("unusable settings: " + "; ".join(reasons)) from None

    @property
    def max_batch_photos(self) -> int:
        """A product has one photo or two as a rule; a batch of those with more would run for as many times longer."""
        return 2 * self.max_batch

    def resolved_database_url(self) -> str:
        """SQLAlchemy URL of PostgreSQL, with the psycopg 3 driver named."""
        if self.database_url is None:
            return postgres_url(self.var)
        return _with_driver(self.database_url.get_secret_value())

    def resolved_broker_url(self) -> str:
        """Broker URL in the form Celery takes."""
        return redis_url(self.var) if self.broker_url is None else self.broker_url.get_secret_value()

    def resolved_photo_store_url(self) -> str:
        """fsspec URL of the photo store."""
        if self.photo_store_url is None:
            # Not `as_uri`: fsspec takes a path as it is written, and makes a folder "my%20shop" beside "my shop".
            return f"file://{self.var.absolute()}/photos"
        return self.photo_store_url.get_secret_value()

    def max_queued(self, lane: str) -> int:
        """How many queued jobs the lane takes before it is full."""
        return {"interactive": self.max_queued_interactive, "bulk": self.max_queued_bulk}[lane]


def _with_driver(url: str) -> str:
    """PostgreSQL's URL as SQLAlchemy takes it."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return f"{DRIVER}://" + url.removeprefix(plain)
    return url
