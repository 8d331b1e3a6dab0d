"""What the views work with, made once by the factory. Nothing here connects before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app
from sqlalchemy import Engine

from catalog.photo_store import PhotoStore
from catalog.settings import Settings

if TYPE_CHECKING:
    from web.acceptance import Acceptor
    from web.authentication import PageTokens
    from web.broker import Broker
    from web.intake import Intake
    from web.job_watch import JobWatch
    from web.metrics import WebMetrics
    from web.photos import PhotoIntake
    from web.precedence import Precedence
    from web.serving import ServedCheckpoint

_EXTENSION = "tagsmith"


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    photo_store: PhotoStore
    broker: Broker
    acceptor: Acceptor
    intake: Intake
    photo_intake: PhotoIntake
    job_watch: JobWatch
    precedence: Precedence
    metrics: WebMetrics
    page_tokens: PageTokens
    checkpoint: ServedCheckpoint


def install(app: Flask, made: Services) -> None:
    app.extensions[_EXTENSION] = made


def services() -> Services:
    return cast(Services, current_app.extensions[_EXTENSION])
