"""What a seller is told when the photo store is full, and that nothing half is left of what was refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from samples.client import multipart
from tests.faults.fault import Fault
from tests.faults.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# The model view of the photo below fits, the photo itself does not.
ROOM_BYTES = 1_000_000


@contextmanager
def full_file_system(store: Path) -> Iterator[Callable[[int, bool], None]]:
    """A tiny file system, and the means to make it larger."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", store], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("the kernel lets this user mount nothing")

    def restrict(pid: int, full: bool) -> None:
        if not full:
            subprocess.run(["mount", "-o", f"remount,size={100 * ROOM_BYTES}", store], check=True)

    try:
        yield restrict
    finally:
        subprocess.run(["umount", store], check=True)


@contextmanager
def file_size_limit(store: Path) -> Iterator[Callable[[int, bool], None]]:
    """No file of the process may be larger: for whoever cannot mount."""

    def restrict(pid: int, full: bool) -> None:
        limit = ROOM_BYTES if full else psutil.RLIM_INFINITY
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            process.rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))

    yield restrict


def noise() -> bytes:
    """A photo of over 2 MB: noise cannot be compressed."""
    encoded = io.BytesIO()
    Image.frombytes("RGB", (1600, 1200), os.urandom(1600 * 1200 * 3)).save(encoded, "JPEG", quality=95)
    assert encoded.tell() > 1.5 * ROOM_BYTES
    return encoded.getvalue()


@pytest.mark.parametrize(
    "make_full", [full_file_system, pytest.param(file_size_limit, marks=pytest.mark.long)]
)
def test_a_full_photo_store_refuses_the_product_and_takes_it_once_there_is_room(
    installation: Installation, fault: Fault, tmp_path: Path, make_full
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    place = {"TAGSMITH_PHOTO_STORE_URL": store.as_uri()}
    content_type, body = multipart({"title": "a photo"}, [("photo.jpg", noise())])
    headers = {"Content-Type": content_type, "Idempotency-Key": "the-same-product"}
    with make_full(store) as restrict, installation.web(**place) as (client, process):
        strike = fault.strikes()
        restrict(process.pid, True)
        status, answer = client.request("POST", "/v1/products", body, headers)
        problem = json.loads(answer)
        assert (status, problem["status"], problem["type"]) == (503, 503, "/problems/service-unavailable")
        assert [path for path in store.rglob("*") if path.is_file()] == []
        assert (
            installation.query(
                "SELECT 1 FROM products WHERE tenant_id = :tenant", tenant=installation.tenant_id
            )
            == []
        )

        restrict(process.pid, False)
        installation.start_worker(**place)
        status, answer = client.request("POST", "/v1/products", body, headers)
        assert status == 202, answer
        job = json.loads(answer)["job"]["id"]
        fault.recovers(strike)
        stored = sorted(path.suffix for path in store.rglob("*") if path.is_file())
        assert stored == [".model_view", ".original"]
        assert fault.ends(f"photo store full ({make_full.__name__})".replace("_", " "), [job]).succeeded == 1
        installation.kill_workers()
