"""The page, its token, host names, and the headers that keep other sites out."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from catalog import tenants
from catalog.database import transaction
from catalog.settings import Settings
from tests.web.seller import Seller
from web import problems

OWN = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def client(app: Flask, settings: Settings, api_key: str) -> Iterator[FlaskClient]:
    """A browser on this machine; the installation has its first key."""
    key_file = settings.var / "api-key"
    key_file.write_text(api_key + "\n")
    yield app.test_client()
    key_file.unlink(missing_ok=True)


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_inline_script(client: FlaskClient) -> None:
    for path in ("/", "/docs", "/problems", "/problems/photo-too-large"):
        page = client.get(path)
        assert page.status_code == 200
        html = page.text
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)
        assert not re.findall(r"<script(?![^>]*\bsrc=)", html)
        assert not re.findall(r"\son\w+=|\sstyle=", html)
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', html):
            with client.get(asset) as answer:
                assert answer.status_code == 200


def test_every_page_has_one_heading_above_the_others_and_leaves_out_no_level(client: FlaskClient) -> None:
    slugs = [*problems.KINDS, *problems.JOB_ENDINGS]
    for path in ("/", "/docs", "/problems", *(f"/problems/{slug}" for slug in slugs)):
        levels = [int(level) for level in re.findall(r"<h([1-6])\b", client.get(path).text)]
        assert (path, levels[:1], levels.count(1)) == (path, [1], 1)
        assert (path, max(below - above for above, below in pairwise([*levels, 1]))) <= (path, 1)


def test_every_module_that_a_script_of_the_page_imports_is_served(client: FlaskClient) -> None:
    waiting, seen = re.findall(r'<script[^>]* src="([^"]+)"', client.get("/").text), set()
    while waiting:
        path = waiting.pop()
        with client.get(path) as answer:
            assert (path, answer.status_code, answer.mimetype) == (path, 200, "text/javascript")
            seen.add(path)
            found = re.findall(r'^import .* from "\./([^"]+)";$', answer.text, re.MULTILINE)
        waiting += {f"/static/{name}" for name in found} - seen
    assert "/static/page.js" in seen and len(seen) > 1


def test_an_error_that_is_none_of_ours_is_told_by_its_status_alone(client: FlaskClient) -> None:
    answer = client.get("/static/page.css", headers={"Range": "bytes=99999999-"})
    assert (answer.status_code, answer.json["type"]) == (416, "about:blank")
    assert answer.json["title"] == "Requested Range Not Satisfiable"


def test_every_answer_carries_the_security_headers(client: FlaskClient) -> None:
    for path in ("/", "/v1/products", "/nothing", "/static/page.js", "/healthz"):
        with client.get(path) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["X-Request-Id"]
    assert client.get("/v1/products").headers["Cache-Control"] == "no-store"


def test_the_page_of_this_machine_gets_a_token_that_works_as_a_key(client: FlaskClient) -> None:
    answer = client.post("/page/token", headers=OWN)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    page = Seller(client, answer.json["token"])
    assert page.send(title="Shoes").status_code == 202
    # It acts for the account of the first key.
    listed = Seller(
        client, (client.application.extensions["tagsmith"].settings.var / "api-key").read_text().strip()
    )
    assert len(listed.get("/v1/products").json["products"]) == 1


def test_a_token_ends_with_its_key(client: FlaskClient, api_key: str, engine: Engine) -> None:
    page = Seller(client, client.post("/page/token", headers=OWN).json["token"])
    assert page.get("/v1/products").status_code == 200
    with transaction(engine) as session:
        assert tenants.revoke_api_key(session, tenants.hash_key(api_key)[: tenants.ID_DIGITS])
    assert page.get("/v1/products").status_code == 401


def test_a_token_ends_after_its_time(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Seller(client, client.post("/page/token", headers=OWN).json["token"])
    assert page.get("/v1/products").status_code == 200
    monkeypatch.setattr("web.authentication.PAGE_TOKEN_LIFETIME_S", -1)
    assert page.get("/v1/products").status_code == 401


def test_a_first_key_that_was_revoked_gives_no_token(
    client: FlaskClient, api_key: str, engine: Engine
) -> None:
    with transaction(engine) as session:
        assert tenants.revoke_api_key(session, tenants.hash_key(api_key)[: tenants.ID_DIGITS])
    assert client.post("/page/token", headers=OWN).status_code == 401


def test_a_token_of_another_process_is_worth_nothing(
    client: FlaskClient, make_app: Callable[..., Flask]
) -> None:
    token = client.post("/page/token", headers=OWN).json["token"]
    assert Seller(make_app().test_client(), token).get("/v1/products").status_code == 401
    assert Seller(client, token[:-2]).get("/v1/products").status_code == 401


@pytest.mark.parametrize(
    "changed",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"X-Forwarded-Host": "shop.example"},
        {"X-Real-Ip": "203.0.113.7"},
        {"Via": "1.1 proxy.example"},
    ],
)
def test_nobody_else_gets_a_token(client: FlaskClient, changed: dict[str, str]) -> None:
    answer = client.post("/page/token", headers={**OWN, **changed})
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/page-needs-key")


@pytest.mark.parametrize("address", ["192.168.1.9", ""])
def test_another_machine_gets_no_token(client: FlaskClient, address: str) -> None:
    answer = client.post("/page/token", headers=OWN, environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == 403


def test_a_browser_that_says_only_where_its_page_is_from_gets_a_token(client: FlaskClient) -> None:
    """Older ones write no Sec-Fetch-Site."""
    told = {name: value for name, value in OWN.items() if name != "Sec-Fetch-Site"}
    assert client.post("/page/token", headers=told).status_code == 200


def test_a_service_for_other_machines_asks_everybody_for_a_key(
    client: FlaskClient, make_app: Callable[..., Flask]
) -> None:
    public = make_app(host="0.0.0.0").test_client()
    assert public.post("/page/token", headers=OWN).status_code == 403
    page = public.get("/", headers={"Host": "shop.example"})
    assert page.status_code == 200
    assert 'data-asks-for-key="true"' in page.text
    assert 'data-asks-for-key="false"' in client.get("/").text


def test_without_a_first_key_the_page_says_what_to_do(client: FlaskClient, settings: Settings) -> None:
    (settings.var / "api-key").unlink()
    answer = client.post("/page/token", headers=OWN)
    assert answer.status_code == 403
    assert "python -m catalog prepare" in answer.json["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost:8000", 200), ("localhost", 200), ("[::1]:8000", 200),
        ("127.0.0.2:80", 200), ("evil.example", 421), ("evil.example:8000", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421), ("192.168.1.5:8000", 421), ("0.0.0.0:8000", 421), ("[::2]:8000", 421),
    ],
)  # fmt: skip
def test_a_service_on_loopback_answers_only_to_loopback_names(
    client: FlaskClient, host: str, status: int
) -> None:
    for path in ("/", "/healthz"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == status
        if status == 421:
            assert answer.json["type"] == "/problems/unknown-host"


@pytest.mark.parametrize("host", ["", "evil example", "a" * 5000, "\u00e9", "127.0.0.1:8000, evil.example"])
def test_a_broken_host_header_is_no_defect(client: FlaskClient, host: str) -> None:
    answer: Any = client.get("/", headers={"Host": host})
    assert answer.status_code in (200, 400, 421)
    assert answer.status_code == 200 or answer.content_type == "application/problem+json"
