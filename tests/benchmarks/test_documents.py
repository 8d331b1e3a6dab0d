"""The documents of the benchmarks that measure a whole installation, which one start of one is enough for."""

import json
import os
from contextlib import nullcontext

import pytest
import torch
from click.testing import CliRunner

from benchmarks import service, under_load
from benchmarks.__main__ import main
from benchmarks.installation import own
from catalog.settings import PREFIX
from models.checkpoint import save
from tests.tiny_tagger import tiny_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """One with a tiny model, as the commands start it."""
    checkpoint = tmp_path_factory.mktemp("tiny") / "checkpoint"
    save(tiny_checkpoint(), checkpoint)
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            environment.delenv(name)
        environment.setenv("TAGSMITH_CHECKPOINT", str(checkpoint))
        environment.setenv("TAGSMITH_DEVICE", "cpu")
        with own() as started:
            yield started


@pytest.fixture
def document_of(installation, monkeypatch, tmp_path):
    """Gives the document of a command that finds this installation where it would start its own."""

    def run(command, *arguments):
        module = f"benchmarks.commands.{command.replace('-', '_')}"
        monkeypatch.setattr(f"{module}.own", lambda *_: nullcontext(installation))
        out = tmp_path / "document.json"
        threads = torch.get_num_threads()
        try:
            result = CliRunner().invoke(main, [command, *arguments, "--json", "--out", str(out)])
        finally:
            torch.set_num_threads(threads)
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert document == json.loads(out.read_text())
        return document

    return run


def test_the_document_of_the_service(document_of):
    document = document_of("service", "--products", "12", "--rounds", "2")
    assert document["lane"] == "bulk" and document["products"] == 12 and len(document["rounds"]) == 2
    assert document["model"]["name"] == "tiny"
    assert document["settings"]["device"] == "cpu" and document["settings"]["threads"] >= 1
    assert document["machine"]["load_1m"] >= 0
    slower = min(document["bare_forward_per_s"], document["decode_per_s"])
    assert document["ratio"] == pytest.approx(document["end_to_end_per_s"] / slower, rel=0.02)
    table = service.table(document)
    assert "2 rounds of 12 products, bulk lane" in table
    assert f"Bound by {document['bound_by']}, the slowest part." in table


def test_the_document_under_load(document_of, monkeypatch):
    # A tiny model may be done with an import before two products are, and test_under_load says what happens then.
    monkeypatch.setattr(under_load, "require_running", lambda *_: None)
    document = document_of(
        *("under-load", "--products", "2", "--import", "150", "--seconds", "1", "--rounds", "1")
    )
    assert document["saturation_per_s"] > 0
    assert all(document["ms"][f"load {share}"]["p50"] > 0 for share in under_load.SHARES)
    assert "1 rounds of 2 products" in under_load.table(document)
