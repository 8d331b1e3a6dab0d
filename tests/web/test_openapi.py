"""The OpenAPI document: complete, valid, and kept by the application itself."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema_rs import Draft202012Validator
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import REPOSITORY
from web import problems

CALLS = {
    ("/v1/products", "post"), ("/v1/products", "get"), ("/v1/products/{product_id}", "get"),
    ("/v1/products/{product_id}", "patch"), ("/v1/products/{product_id}", "delete"),
    ("/v1/jobs/{job_id}", "get"), ("/v1/jobs/{job_id}", "delete"), ("/v1/taxonomy", "get"),
    ("/v1/model", "get"), ("/healthz", "get"), ("/readyz", "get"), ("/metrics", "get"),
}  # fmt: skip


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json")
    assert answer.content_type == "application/json"
    return answer.json  # type: ignore[no-any-return]


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_call_of_the_interface_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert document["info"]["version"] == project["version"]
    assert {(path, method) for path, method, _ in operations(document)} == CALLS
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(CALLS)
    assert all(operation["summary"] for _, _, operation in operations(document))


def test_every_reference_resolves_and_every_schema_is_valid(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    for name in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert name in schemas
    for schema in schemas.values():
        Draft202012Validator(
            json.loads(json.dumps(schema).replace("#/components/schemas/", "#/$defs/"))
            | {"$defs": json.loads(json.dumps(schemas).replace("#/components/schemas/", "#/$defs/"))}
        )


def test_every_call_under_v1_wants_a_bearer_key_and_names_its_problems(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    for path, _, operation in operations(document):
        if not path.startswith("/v1/"):
            assert "security" not in operation
            continue
        assert operation["security"] == [{"ApiKey": []}]
        assert {"401", "422", "503"} <= set(operation["responses"])
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert list(answer["content"]) == [problems.MEDIA_TYPE]


def test_a_product_can_be_sent_as_form_and_as_json(document: dict[str, Any]) -> None:
    for path, method in (("/v1/products", "post"), ("/v1/products/{product_id}", "patch")):
        content = document["paths"][path][method]["requestBody"]["content"]
        form, body = content["multipart/form-data"]["schema"], content["application/json"]["schema"]
        assert "photos" in form["properties"]
        assert "photo_urls" not in form["properties"]
        assert "photo_urls" in body["properties"]
        assert form["additionalProperties"] is body["additionalProperties"] is False


def test_what_an_answer_says_in_its_headers_is_described(document: dict[str, Any]) -> None:
    def headers(path: str, method: str, status: str) -> set[str]:
        return set(document["paths"][path][method]["responses"][status].get("headers", {}))

    assert headers("/v1/products", "post", "202") == {"Location", "Retry-After", "Idempotent-Replayed"}
    assert headers("/v1/jobs/{job_id}", "get", "200") == {"Retry-After"}
    assert headers("/v1/jobs/{job_id}", "delete", "200") == set()
    assert headers("/v1/jobs/{job_id}", "delete", "409") == set()
    for path, method in (("/v1/products", "post"), ("/v1/products/{product_id}", "patch")):
        assert headers(path, method, "409") == {"Retry-After"}


def test_generators_of_clients_find_each_shape_once_and_know_files(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    titles = [schema["title"] for schema in schemas.values()]
    assert len(set(titles)) == len(titles)
    assert {"JobOut", "TagOut", "ProductOut", "PhotoOut"} <= schemas.keys()
    form = document["paths"]["/v1/products"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["photos"]["items"]["format"] == "binary"


def test_the_page_of_the_interface_has_its_limits_defaults_and_headers(app: Flask) -> None:
    html = app.test_client().get("/docs").text
    for said in (
        "integer, 1 to 100, 20 if left out", "at most 20,000 characters", "list of file, at most 8",
        "<code>Location</code>: The job.", "<code>Retry-After</code>: Seconds.",
    ):  # fmt: skip
        assert said in html, said


def body(document: dict[str, Any], path: str, method: str, media_type: str) -> dict[str, Any]:
    content = document["paths"][path][method]["requestBody"]["content"]
    return content[media_type]["schema"]["properties"]  # type: ignore[no-any-return]


@pytest.fixture
def limited(make_app: Callable[..., Flask]) -> dict[str, Any]:
    """The document of an installation whose every limit is another one."""
    app = make_app(
        max_title_chars=11,
        max_description_chars=12,
        max_external_id_chars=13,
        max_photos=3,
        idempotency_ttl_s=7200,
    )
    return app.test_client().get("/openapi.json").json  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/products", "post"), ("/v1/products/{product_id}", "patch")]
)
def test_the_limits_of_a_body_are_those_of_the_installation(
    limited: dict[str, Any], path: str, method: str
) -> None:
    form = body(limited, path, method, "multipart/form-data")
    texts = {name: field["maxLength"] for name, field in form.items() if "maxLength" in field}
    expected = {"title": 11, "description": 12}
    assert texts == expected | ({"external_id": 13} if method == "post" else {})
    assert form["photos"]["maxItems"] == 3
    fields = body(limited, path, method, "application/json")
    for name, limit in texts.items():
        assert fields[name]["anyOf"] == [{"type": "string", "maxLength": limit}, {"type": "null"}]
    addresses = fields["photo_urls"].get("anyOf", [fields["photo_urls"]])
    assert addresses[0]["maxItems"] == 3


@pytest.mark.parametrize(
    ("ttl_s", "said"),
    [(86_400, "24 hours"), (172_800, "2 days"), (7200, "2 hours"), (90, "90 seconds"), (0.5, "0.5 seconds")],
)
def test_the_time_that_a_key_is_remembered_is_that_of_the_installation(
    make_app: Callable[..., Flask], ttl_s: float, said: str
) -> None:
    document = make_app(idempotency_ttl_s=ttl_s).test_client().get("/openapi.json").json
    (key,) = (
        parameter
        for parameter in document["paths"]["/v1/products"]["post"]["parameters"]
        if parameter["name"] == "Idempotency-Key"
    )
    assert key["description"].endswith(f"the first answer, for {said}.")


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
    for name, content in (("config", {"name": "x"}), ("taxonomy", TAXONOMY), ("metrics", {})):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip
# What a worker has to be there for, and what no input can change.
NOT_GENERATED = {"/readyz", "/healthz", "/metrics"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_application_answers_as_its_document_says(
    app: Flask, api_key: str, checkpoint: Path, mode: GenerationMode
) -> None:
    """Generated requests, valid ones and invalid ones, the same on every run."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    answered: dict[str, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in NOT_GENERATED:
            continue

        @settings(
            max_examples=10, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {api_key}"}, checks=CHECKS)
            answered[case.operation.label] = answered.get(case.operation.label, 0) + 1

        check()
    assert len(answered) == len(CALLS) - len(NOT_GENERATED)
