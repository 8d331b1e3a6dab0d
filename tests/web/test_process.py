"""The process as it is run: gunicorn with its configuration, a real socket, no torch."""

import base64
import http.client
import io
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from selectors import SelectSelector
from types import SimpleNamespace

import pytest
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from catalog.settings import PREFIX, Settings
from tests.conftest import REPOSITORY, EmbeddedServers
from tests.web.seller import encoded, picture
from web.__main__ import command
from web.gunicorn import BoundedWorker
from web.precedence import MOST_IN_LINE

START_S = 90
MAX_RSS_MB = 150

# Large, and of no use to intake.
NOT_IN_WEB = ["torch", "torchvision", "transformers", "open_clip", "timm", "models", "workers",
              "numpy", "pandas", "scipy", "sklearn", "alembic"]  # fmt: skip
# What the application is made of: the master, which lives beside the worker, must not hold it a second time.
NOT_IN_MASTER = ["flask", "apiflask", "pydantic", "structlog", "sqlalchemy", "celery", "PIL", "requests"]

REFUSING = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ImportError(f"{name} must not be imported here")

sys.meta_path.insert(0, Refuse())
"""
APPLICATION = """
from web.app import create_app

app = create_app()
assert app.test_client().get("/healthz").status_code == 200
assert app.test_client().get("/openapi.json").status_code == 200
print("started")
"""
MASTER = """
import gunicorn.app.wsgiapp
import web.gunicorn
print("started")
"""


@dataclass(frozen=True)
class Process:
    port: int
    master: int
    log: Path

    def worker(self) -> int:
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        assert len(children) == 1
        return int(children[0])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


def environment(var: Path, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**kept, "TAGSMITH_VAR": str(var), **changes}


@pytest.fixture(scope="module")
def process(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("web")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "web.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "web"],
            cwd=REPOSITORY,
            env=environment(
                servers.var,
                TAGSMITH_PORT=str(port),
                TAGSMITH_PHOTO_STORE_URL=(folder / "photos").as_uri(),
            ),
            stdout=output,
            stderr=output,
        )
    started = Process(port, running.pid, log)
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                with closing(started.connection()) as connection:
                    connection.request("GET", "/healthz")
                    connection.getresponse().read()
                break
            except OSError:
                time.sleep(0.05)
        yield started
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


@pytest.mark.parametrize(
    ("program", "refused"),
    [
        pytest.param(APPLICATION, NOT_IN_WEB, id="application"),
        pytest.param(MASTER, NOT_IN_WEB + NOT_IN_MASTER, id="master"),
    ],
)
def test_it_starts_where_what_would_make_it_large_cannot_be_imported(
    tmp_path: Path, program: str, refused: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSING + program, *refused], cwd=REPOSITORY, env=environment(tmp_path),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "started\n", done.stderr


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:8123"), ("::1", "[::1]:8123")])
def test_gunicorn_listens_where_the_settings_say_and_has_threads_beside_the_waiting(
    host: str, address: str
) -> None:
    words = command(Settings(host=host, port=8123, max_waiters=3))
    assert words[words.index("--bind") + 1] == address
    assert int(words[words.index("--threads") + 1]) > 3 + MOST_IN_LINE


def test_an_unknown_setting_stops_the_process_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "web"],
        cwd=REPOSITORY, env=environment(tmp_path, TAGSMITH_PROT="1"), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "unknown setting TAGSMITH_PROT" in done.stderr
    assert "Traceback" not in done.stderr


def run_web(var: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "web", *arguments],
        cwd=REPOSITORY, env=environment(var, **changes), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_its_help_is_its_own(tmp_path: Path) -> None:
    done = run_web(tmp_path, "--help")
    assert done.returncode == 0
    assert "TAGSMITH_" in done.stdout and "Example: " in done.stdout
    assert "--graceful-timeout" not in done.stdout


@pytest.mark.parametrize("words", [["--workers", "2"], ["--workers=2"], ["-w2"]])
def test_a_second_process_that_would_count_for_itself_is_refused(tmp_path: Path, words: list[str]) -> None:
    done = run_web(tmp_path, *words)
    assert done.returncode == 2
    assert "ports of their own" in done.stderr


def test_no_setting_leaves_threads_without_connections() -> None:
    from web import gunicorn

    most = next(limit.le for limit in Settings.model_fields["max_waiters"].metadata if hasattr(limit, "le"))
    words = command(Settings(max_waiters=most))
    assert int(words[words.index("--threads") + 1]) < gunicorn.worker_connections


def test_with_json_logs_gunicorns_lines_are_json_too(tmp_path: Path) -> None:
    """It ends by itself: it cannot bind, and says so."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        # Waits a second between five attempts.
        done = run_web(tmp_path, TAGSMITH_LOG_JSON="true", TAGSMITH_PORT=port)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["logger"] for line in lines} == {"gunicorn.error"}
    assert any("in use" in line["event"] and line["level"] == "error" for line in lines)


def test_what_went_wrong_is_part_of_the_json_line() -> None:
    from web.gunicorn_log import JsonLines

    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord(
            "gunicorn.error", logging.ERROR, "", 1, "%s failed", ("it",), sys.exc_info()
        )
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["level"], line["timestamp"][-1]) == ("it failed", "error", "Z")
    assert "ValueError: why" in line["exception"]


def test_the_process_answers_products_and_stays_small(process: Process, api_key: str) -> None:
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "multipart/form-data; boundary=b"}
    large = encoded(picture(4000, 3000), "PNG")
    body = (
        b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\nShoes\r\n'
        b'--b\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
        + large
        + b"\r\n--b--\r\n"
    )
    with closing(process.connection()) as connection:
        for _ in range(5):
            connection.request("POST", "/v1/products", body, headers)
            answer = connection.getresponse()
            accepted = json.loads(answer.read())
            assert answer.status == 202
        connection.request("GET", f"/v1/jobs/{accepted['job']['id']}?wait=0.05", headers=headers)
        assert json.loads(connection.getresponse().read())["status"] == "queued"
    resident = [rss_mb(pid) for pid in (process.master, process.worker())]
    assert sum(resident) < MAX_RSS_MB, resident


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (kibibytes,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    return kibibytes * 1024 / 1e6


def test_a_refusal_reaches_a_client_that_is_still_sending(process: Process, api_key: str) -> None:
    with closing(process.connection()) as connection:
        connection.request("POST", "/v1/products", b"x" * 65_000_000, {"Content-Type": "multipart/form-data"})
        assert connection.getresponse().status == 401
    with closing(process.connection()) as connection:
        connection.request("POST", "/v1/products", b"x" * 65_000_000,
                           {"Content-Type": "multipart/form-data; boundary=b",
                            "Authorization": f"Bearer {api_key}"})  # fmt: skip
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["type"] == "/problems/request-too-large"


def raw(process: Process, request: bytes) -> tuple[int, dict[str, object]]:
    """Sends these bytes and nothing more; status and problem of the answer."""
    with process.connect() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


POST = b"POST /v1/products HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BROKEN_BODIES = {
    "stops early": b"Content-Length: 1000\r\n\r\n{",
    "is cut off in a chunk": b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"ti',
    "has a chunk that is none": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
}


def test_a_broken_body_is_400(process: Process, api_key: str, subtests: pytest.Subtests) -> None:
    for name, body in BROKEN_BODIES.items():
        with subtests.test(name):
            key = f"Authorization: Bearer {api_key}\r\n".encode()
            status, problem = raw(process, POST + key + body)
            assert status == problem["status"] == 400
    assert "Traceback" not in process.log.read_text()


NO_REQUESTS = {
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "an address of 20,000 characters": (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
    "a header with a space in its name": (b"GET / HTTP/1.1\r\nBad Header: 1\r\n\r\n", 400),
    "a huge header": (b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    "a thousand headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 431),
    "a key in a line without its colon": (b"GET / HTTP/1.1\r\nAuthorization Bearer tsk_secret\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
}


def test_what_is_no_request_is_refused_in_the_same_form(process: Process, subtests: pytest.Subtests) -> None:
    for name, (request, expected) in NO_REQUESTS.items():
        with subtests.test(name):
            status, problem = raw(process, request)
            assert status == problem["status"] == expected
            assert str(problem["type"]).startswith("/problems/")
    log = process.log.read_text()
    assert "request refused: InvalidHeader" in log
    assert "tsk_secret" not in log


def test_a_process_that_may_open_no_more_files_goes_on(process: Process) -> None:
    worker = process.worker()
    limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    held = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (held + 4, limit[1]))
    try:
        connections = [process.connect() for _ in range(8)]
        refused = "connection not accepted for now"
        deadline = time.monotonic() + START_S
        while refused not in process.log.read_text():
            assert time.monotonic() < deadline, process.log.read_text()
            time.sleep(0.05)
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
    for connection in connections:
        connection.close()
    with closing(process.connection()) as answered:
        answered.request("GET", "/healthz")
        assert answered.getresponse().status == 200
    assert process.worker() == worker


def test_a_connection_that_gets_no_thread_of_its_own_is_taken_by_those_there_are() -> None:
    class OutOfThreads:
        def submit(self, *_: object) -> None:
            raise RuntimeError("can't start new thread")

    worker = BoundedWorker.__new__(BoundedWorker)
    worker.tpool, worker.log, worker.nr_conns = OutOfThreads(), logging.getLogger("web.test"), 1
    worker.enqueue_req(object())
    assert worker.nr_conns == 0


def test_clients_that_do_not_close_stop_nobody_else(process: Process) -> None:
    worker = process.worker()
    # As many as had the process ended for not moving, when it waited for each on its one thread for connections.
    staying = [process.connect() for _ in range(40)]
    for client in staying:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    with closing(process.connection()) as another:
        another.request("GET", "/healthz")
        assert another.getresponse().status == 200
    for client in staying:
        with client:
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert process.worker() == worker


class Closed:
    """A connection that knows how it was closed, and by which thread."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.parser = SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO()))
        self.closings: list[tuple[bool, int]] = []

    def set_timeout(self) -> None:
        self.timeout = 0.0

    def close(self, graceful: bool = False) -> None:
        self.closings.append((graceful, threading.get_ident()))
        self.sock.close()


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> BoundedWorker:
    """Without a process: a connection is kept or not, as `keep` says."""
    worker = BoundedWorker.__new__(BoundedWorker)
    worker.nr_conns, worker.alive, worker.poller, worker.keepalived_conns = 1, True, SelectSelector(), deque()
    monkeypatch.setattr(ThreadWorker, "handle", lambda self, conn: self.keep)
    return worker


def test_a_client_that_does_not_close_is_waited_for_by_the_thread_that_answered_it(
    bounded: BoundedWorker,
) -> None:
    """Not by the one that takes all connections: whoever kept it busy would stop everybody."""
    bounded.keep, conn = False, Closed()
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(bounded.handle, conn)
        thread = pool.submit(threading.get_ident).result()
    bounded.finish_request(conn, answered)
    assert conn.closings == [(True, thread)]
    assert bounded.nr_conns == 0


def test_only_so_many_clients_that_do_not_close_are_waited_for(bounded: BoundedWorker) -> None:
    bounded.keep, bounded._closing = False, threading.BoundedSemaphore(1)
    first, second, third = Closed(), Closed(), Closed()
    with bounded._closing:
        bounded.handle(first)
    bounded.handle(second)
    bounded.handle(third)
    assert [conn.closings[0][0] for conn in (first, second, third)] == [False, True, True]


def test_a_connection_that_is_kept_stays_open(bounded: BoundedWorker) -> None:
    bounded.keep, conn = True, Closed()
    with ThreadPoolExecutor(1) as pool, bounded.poller, conn.sock:
        bounded.finish_request(conn, pool.submit(bounded.handle, conn))
    assert conn.closings == []
    assert (bounded.nr_conns, list(bounded.keepalived_conns)) == (1, [conn])


def test_a_stop_sends_the_bulk_jobs_that_wait_for_their_message(
    process: Process, api_key: str, servers: EmbeddedServers, redis_url: str
) -> None:
    ids = []
    with closing(process.connection()) as connection:
        for number in range(5):
            body = json.dumps({"title": f"product {number}", "lane": "bulk"})
            headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/products", body, headers)
            ids.append(json.loads(connection.getresponse().read())["job"]["id"])
    stopped = process.worker()
    os.kill(stopped, signal.SIGTERM)
    deadline = time.monotonic() + START_S
    while Path(f"/proc/{stopped}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with closing(process.connection()) as connection:  # its successor is there for the other tests
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    with closing(servers.redis()) as broker:
        bodies = [base64.b64decode(json.loads(message)["body"]) for message in broker.lrange("bulk", 0, -1)]
    assert sorted(job_id for body in bodies for job_id in json.loads(body)[0][0]["job_ids"]) == sorted(ids)
