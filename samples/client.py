"""The public API as a stranger's program uses it, with nothing but the standard library.

Speaks HTTP over one kept connection; knows no package of the project and reads no setting.
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

FOLDER = Path(__file__).resolve().parent


class ApiError(Exception):
    """The API answered, and the answer is not the one that was hoped for."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        try:
            problem = json.loads(body)
            reason = problem.get("detail") or problem.get("title")
        except (ValueError, AttributeError):
            reason = body[:200].decode(errors="replace")
        super().__init__(f"HTTP {status}: {reason}")


@dataclass(frozen=True)
class Sample:
    """One product to upload; the photo is an encoded file."""

    title: str
    description: str
    external_id: str
    photo_name: str
    photo: bytes


def read_samples() -> list[Sample]:
    """The three committed products."""
    return [
        Sample(
            title=entry["title"],
            description=entry["description"],
            external_id=entry["external_id"],
            photo_name=entry["photo"],
            photo=(FOLDER / entry["photo"]).read_bytes(),
        )
        for entry in json.loads((FOLDER / "products.json").read_text(encoding="utf-8"))
    ]


def multipart(fields: Mapping[str, str], photos: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The content type and the body of a form with files (RFC 7578)."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, content in photos:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="photos"; filename="{name}"\r\n'
        parts.append(head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


def url_of(host: str, port: int) -> str:
    """Where a service is asked that listens there; an IPv6 address stands in brackets (RFC 3986)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Client:
    """One connection to one installation.

    Raises OSError when it cannot be reached and ApiError for an error answer.
    """

    def __init__(self, base_url: str, key: str | None = None, timeout_s: float = 40) -> None:
        self.base_url = base_url
        address = urlsplit(base_url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port or 80, timeout=timeout_s
        )
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body, whatever the status."""
        try:
            self._connection.request(method, path, body, {**self._headers, **(headers or {})})
            response = self._connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            self._connection.close()
            raise ConnectionError(f"not an HTTP answer: {error!r}") from error
        except OSError:
            self._connection.close()
            raise

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The decoded JSON of a successful answer."""
        status, answer = self.request(method, path, body, headers)
        if status >= 400:
            raise ApiError(status, answer)
        return json.loads(answer)

    def upload(self, sample: Sample) -> dict[str, Any]:
        """POST one product; the answer holds `product` and `job`."""
        content_type, body = multipart(
            {"title": sample.title, "description": sample.description, "external_id": sample.external_id},
            [(sample.photo_name, sample.photo)],
        )
        answer: dict[str, Any] = self.call("POST", "/v1/products", body, {"Content-Type": content_type})
        return answer

    def job(self, job_id: str, wait_s: float = 0) -> dict[str, Any]:
        """The job as it is, or as it is once it has ended or `wait_s` is over."""
        answer: dict[str, Any] = self.call("GET", f"/v1/jobs/{job_id}?wait={wait_s:g}")
        return answer
