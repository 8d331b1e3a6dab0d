"""A seller with a key, a look at what is stored, and pictures to send."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from PIL import Image, ImageDraw
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse


@dataclass(frozen=True)
class Seller:
    """Somebody with a key, and the verbs of the API."""

    client: FlaskClient
    key: str

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def send(self, *photos: bytes, headers: dict[str, str] | None = None, **fields: str) -> TestResponse:
        """A product as a form; photos get names that say nothing of their content."""
        return self.call("POST", "/v1/products", **form(*photos, **fields), headers=headers or {})

    def send_json(self, document: Any, **options: Any) -> TestResponse:
        return self.call("POST", "/v1/products", json=document, **options)


def form(*photos: bytes, **fields: str) -> dict[str, Any]:
    """The options of a call that sends a form."""
    files = [(io.BytesIO(photo), f"upload-{number}.bin") for number, photo in enumerate(photos)]
    return {"data": {**fields, "photos": files}, "content_type": "multipart/form-data"}


@dataclass(frozen=True)
class Stored:
    """What is in the database and the photo store, counted."""

    engine: Engine
    photos: Path

    def rows(self, table: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    def files(self) -> list[Path]:
        return [path for path in self.photos.rglob("*") if path.is_file()]

    def nothing(self) -> bool:
        tables = ("products", "jobs", "photos", "product_photos", "idempotency_records")
        return not self.files() and all(self.rows(table) == 0 for table in tables)


def picture(width: int = 60, height: int = 80, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right, a green band at the top: every turn shows."""
    drawn = Image.new("RGB", (width, height), (200, 30, 30))
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((width // 2, 0, width, height), fill=(30, 30, 200))
    draw.rectangle((0, 0, width, height // 4), fill=(30, 160, 30))
    return drawn.convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
