"""The settings of one process: read once from the environment, frozen, passed down.

Knows the names, units and limits; opens nothing. URLs may hold passwords, so they are secrets here and are
unwrapped only by the `resolved_…` methods, whose results must not be logged.
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from catalog.embedded import postgres_url, redis_url
from catalog.errors import SettingsError

PREFIX = "TAGSMITH_"


class Settings(BaseSettings):
    """Every setting is the environment variable TAGSMITH_<NAME IN CAPITALS>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    # Where things are. An unset URL means the server or folder of our own under `var`.
    var: Path = Path("var")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    database_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    photo_store_url: SecretStr | None = None
    database_pool: int = Field(default=16, ge=1)  # connections of one process; PostgreSQL allows 100 in all
    log_json: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9464, ge=0, le=65535)  # the worker's

    # The model.
    checkpoint: Path = Path("models/starter")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_batch: int = Field(default=32, ge=1)
    max_batch_tokens: int = Field(default=8192, ge=1)
    max_ready: int = Field(
        default=256, ge=1
    )  # prepared jobs waiting for the device; full means back-pressure
    forward_timeout_s: float = Field(default=50, gt=0)
    bulk_forward_s: float = Field(default=0.07, gt=0)  # of bulk while people send products as well

    embedding_cache_days: float = Field(default=30, ge=0, le=36_500)  # of photos and texts; 0 keeps none

    # The life of a job.
    lease_s: float = Field(default=20, gt=0)  # renewed while the worker lives; what a lost machine costs
    max_attempts: int = Field(default=5, ge=1)
    retry_delay_s: float = Field(default=5, ge=0)
    resend_after_s: float = Field(default=15, ge=0)
    sweep_interval_s: float = Field(default=5, gt=0)
    sweep_limit: int = Field(
        default=2000, ge=1
    )  # jobs of one lane that one sweep sends: under a second of work
    max_queued_interactive: int = Field(default=10_000, ge=0)
    max_queued_bulk: int = Field(default=1_000_000, ge=0)

    # What intake takes.
    max_title_chars: int = Field(default=500, ge=1)
    max_description_chars: int = Field(default=20_000, ge=1)
    max_external_id_chars: int = Field(default=200, ge=1)
    max_photos: int = Field(default=8, ge=0)
    max_photo_bytes: int = Field(default=10_000_000, ge=1)
    max_request_bytes: int = Field(default=64_000_000, ge=1)
    max_photo_pixels: int = Field(default=50_000_000, ge=1)
    model_view_side: int = Field(default=320, ge=32)
    max_waiters: int = Field(default=16, ge=0)  # requests of one process that may hold a `wait` open
    idempotency_ttl_s: float = Field(default=86_400, gt=0)
    idempotency_lock_s: float = Field(default=60, gt=0)  # a request that died frees its key after this long

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
                f"{fault['msg']}"
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
        url = self.database_url.get_secret_value()
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    def resolved_broker_url(self) -> str:
        """Broker URL in the form Celery takes."""
        return redis_url(self.var) if self.broker_url is None else self.broker_url.get_secret_value()

    def resolved_photo_store_url(self) -> str:
        """fsspec URL of the photo store."""
        if self.photo_store_url is None:
            return (self.var.absolute() / "photos").as_uri()
        return self.photo_store_url.get_secret_value()

    def max_queued(self, lane: str) -> int:
        """How many queued jobs the lane takes before it is full."""
        return {"interactive": self.max_queued_interactive, "bulk": self.max_queued_bulk}[lane]
