"""Addresses of photos: what is never reached, and what is read of what is. No network is used."""

import io
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import urllib3
from urllib3.response import HTTPResponse

from catalog.settings import Settings
from tests.web.seller import Seller, Stored
from web import photo_urls
from web.photo_urls import PhotoUrlFetcher, open_session
from web.problems import ProblemError

ACCOUNT = "acc_1"
URL = "https://images.example.com/shoe.jpg"


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records who would be connected to instead of connecting."""
    connected: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError("a test connects to nobody")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return connected


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes every name mean this address."""

    def set_address(address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def lookup(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)

    return set_address


def refused(urls: list[str]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        PhotoUrlFetcher(Settings()).fetch_all(urls, ACCOUNT)
    return caught.value


INSIDE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::1",
    "2001:db8::1", "::7f00:1", "fec0::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_no_name_leads_inside(
    address: str, resolve_to: Callable[[str], None], no_connection: list[Any]
) -> None:
    resolve_to(address)
    assert refused([URL]).kind.slug == "photo-url-refused"
    assert no_connection == []


@pytest.mark.parametrize(
    "host",
    [*(f"[{address}]" if ":" in address else address for address in INSIDE),
     "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[fe80::1%25eth0]"],
)  # fmt: skip
def test_no_literal_leads_inside(host: str, no_connection: list[Any]) -> None:
    assert refused([f"https://{host}/latest/meta-data"]).kind.slug == "photo-url-refused"
    assert no_connection == []


def test_a_public_address_may_be_written_as_that_of_the_other_version(no_connection: list[Any]) -> None:
    assert refused(["https://[::ffff:93.184.216.34]/"]).kind.slug == "photo-url-unreachable"
    assert {address[0] for address in no_connection} == {"93.184.216.34"}


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.com/a.jpg", "ftp://images.example.com/a.jpg", "file:///etc/passwd",
        "gopher://example.com/", "//example.com/a.jpg", "images.example.com/a.jpg", "", "https://",
        "https:///a.jpg", "https://user@example.com/a.jpg", "https://user:pass@example.com/a.jpg",
        "https://:pass@example.com/a.jpg", "https://@example.com/a.jpg", "https://example.com/a\x7f.jpg",
        "https://example.com:99999/a.jpg", "https://example.com:x/a.jpg", "https://[::1/a.jpg",
        "https://exa mple.com/a.jpg", "https://example.com/a\r\nHost: inside/", "javascript:alert(1)",
        "data:image/png;base64,AAAA",
    ],
)  # fmt: skip
def test_only_plain_https_addresses_are_taken(url: str, no_connection: list[Any]) -> None:
    assert refused([url]).kind.slug == "photo-url-refused"
    assert no_connection == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    resolve_to: Callable[[str], None], no_connection: list[Any]
) -> None:
    resolve_to("93.184.216.34")
    assert refused([URL]).kind.slug == "photo-url-unreachable"
    assert {address[0] for address in no_connection} == {"93.184.216.34"}


def test_the_certificate_has_to_be_that_of_the_name(resolve_to: Callable[[str], None]) -> None:
    resolve_to("93.184.216.34")
    request = requests.Request("GET", URL).prepare()
    with open_session() as session:
        adapter = session.get_adapter(URL)
        host, pool = adapter.build_connection_pool_key_attributes(request, verify=True)  # type: ignore[attr-defined]
    assert host["host"] == "93.184.216.34"
    assert pool["server_hostname"] == pool["assert_hostname"] == "images.example.com"


def test_proxies_and_credentials_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, resolve_to: Callable[[str], None], no_connection: list[Any]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://10.0.0.9:3128")
    resolve_to("93.184.216.34")
    refused([URL])
    assert {address[0] for address in no_connection} == {"93.184.216.34"}
    assert not open_session().trust_env


def test_a_session_knows_no_way_but_https(
    resolve_to: Callable[[str], None], no_connection: list[Any]
) -> None:
    resolve_to("93.184.216.34")
    with open_session() as session, pytest.raises(requests.exceptions.InvalidSchema):
        session.get(URL.replace("https", "http"))
    assert no_connection == []


def test_an_address_inside_refuses_the_whole_upload(
    seller: Seller, stored: Stored, resolve_to: Callable[[str], None]
) -> None:
    resolve_to("169.254.169.254")
    answer = seller.send_json({"title": "Shoes", "photo_urls": [URL]}, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json["type"]) == (422, "/problems/photo-url-refused")
    assert "photo 1" in answer.json["detail"]
    assert "169.254" not in answer.json["detail"]
    assert stored.nothing()


class Server(requests.adapters.BaseAdapter):
    """Answers in place of the network."""

    def __init__(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.body, self.status, self.headers = body, status, headers or {}
        self.requests: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.requests.append(request)
        raw = HTTPResponse(io.BytesIO(self.body), self.headers, self.status, preload_content=False)
        return requests.adapters.HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        pass


@pytest.fixture
def answer_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    def install(*args: Any, **kwargs: Any) -> Server:
        server = Server(*args, **kwargs)

        def session() -> requests.Session:
            opened = open_session()
            opened.mount("https://", server)
            return opened

        monkeypatch.setattr(photo_urls, "open_session", session)
        return server

    return install


def test_photos_behind_addresses_are_taken_like_files(
    seller: Seller, jpeg: bytes, answer_with: Callable[..., Server]
) -> None:
    server = answer_with(jpeg, headers={"Content-Type": "text/html"})
    answer = seller.send_json({"photo_urls": [URL, URL + "?2"]})
    assert answer.status_code == 202
    assert [photo["width"] for photo in answer.json["product"]["photos"]] == [60, 60]
    assert [request.url for request in server.requests] == [URL, URL + "?2"]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_what_is_not_a_picture_is_refused_like_a_file(
    seller: Seller, stored: Stored, answer_with: Callable[..., Server]
) -> None:
    answer_with(b"<html>not found</html>")
    assert seller.send_json({"photo_urls": [URL]}).status_code == 415
    assert stored.nothing()


@pytest.mark.parametrize(
    ("body", "status", "headers", "kind"),
    [
        (b"", 302, {"Location": "https://10.0.0.1/"}, "photo-url-refused"),
        (b"", 304, {}, "photo-url-refused"),
        (b"gone", 404, {}, "photo-url-unreachable"),
        (b"partly", 206, {}, "photo-url-unreachable"),
        (b"\x1f\x8b", 200, {"Content-Encoding": "gzip"}, "photo-url-unreachable"),
        (b"x" * 500, 200, {"Content-Length": "99999999"}, "photo-too-large"),
        (b"x" * 1001, 200, {}, "photo-too-large"),
        (b"x" * 10, 200, {"Content-Length": "20"}, "photo-url-unreachable"),
        (b"x" * 10, 200, {"Content-Length": "1" * 5000}, "photo-url-unreachable"),
    ],
)
def test_only_a_whole_picture_of_bounded_size_is_taken(
    answer_with: Callable[..., Server], body: bytes, status: int, headers: dict[str, str], kind: str
) -> None:
    server = answer_with(body, status, headers)
    with pytest.raises(ProblemError) as caught:
        PhotoUrlFetcher(Settings(max_photo_bytes=1000)).fetch_all([URL], ACCOUNT)
    assert caught.value.kind.slug == kind
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location", ["https://images.example.com/new.jpg", "https://[::1", "https://a\u2100b/"]
)
def test_of_a_redirect_nothing_is_read(
    answer_with: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """Its body may be without end or packed, and where it leads need be no address."""
    answer_with(b"x" * 100, 302, {"Location": location.encode().decode("latin-1")})
    monkeypatch.setattr(HTTPResponse, "read", lambda *_, **__: pytest.fail("its body was read"))
    with pytest.raises(ProblemError) as caught:
        PhotoUrlFetcher(Settings()).fetch_all([URL], ACCOUNT)
    assert caught.value.kind.slug == "photo-url-refused"


def test_a_picture_of_the_largest_size_is_taken(answer_with: Callable[..., Server]) -> None:
    largest = b"x" * 1000
    answer_with(largest, headers={"Content-Length": "1000"})
    assert PhotoUrlFetcher(Settings(max_photo_bytes=1000)).fetch_all([URL], ACCOUNT) == [largest]


def test_no_more_requests_than_a_few_are_fetched_for_at_once_and_each_gives_its_place_back(
    answer_with: Callable[..., Server],
) -> None:
    answer_with(b"gone", 404)
    fetcher = PhotoUrlFetcher(Settings())
    for _ in range(photo_urls._REQUESTS_AT_ONCE + 1):
        with pytest.raises(ProblemError, match="404"):
            fetcher.fetch_all([URL], ACCOUNT)
    with ExitStack() as held:
        for _ in range(photo_urls._REQUESTS_OF_ONE):
            held.enter_context(fetcher._slots.take(1, ACCOUNT, "busy"))
        with pytest.raises(ProblemError) as caught:
            fetcher.fetch_all([URL], ACCOUNT)
        with pytest.raises(ProblemError, match="404"):
            fetcher.fetch_all([URL], "acc_2")
    assert (caught.value.kind.slug, caught.value.headers) == ("busy", {"Retry-After": "5"})


def test_a_slow_server_is_given_up_for_all_photos_together(answer_with: Callable[..., Server]) -> None:
    server = answer_with(b"x")
    times = iter([0.0, 0.0, 5.0, 21.0])
    with pytest.raises(ProblemError) as caught:
        PhotoUrlFetcher(Settings(), clock=lambda: next(times)).fetch_all([URL, URL, URL], ACCOUNT)
    assert caught.value.kind.slug == "photo-url-unreachable"
    assert len(server.requests) == 1


def test_a_body_that_the_hard_stop_ended_is_no_whole_photo(answer_with: Callable[..., Server]) -> None:
    """Where the server had not said how long it is, nothing else tells."""
    answer_with(b"the first half", headers={"Content-Length": ""})
    times = iter([0.0, 0.0, 5.0, 20.0])
    with pytest.raises(ProblemError, match="did not arrive within 20 s"):
        PhotoUrlFetcher(Settings(), clock=lambda: next(times)).fetch_all([URL], ACCOUNT)


def test_the_hard_stop_ends_a_connection_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with open_session() as session, ours, theirs:
        adapter = session.get_adapter("https://")
        adapter.sockets.append(ours.dup())  # type: ignore[attr-defined]
        with photo_urls._hard_stop(session, 0.05):
            assert ours.recv(1) == b""  # would wait for ever


def test_photos_for_whose_clock_there_is_no_thread_are_not_fetched(
    monkeypatch: pytest.MonkeyPatch, no_connection: list[Any]
) -> None:
    def out_of_threads(clock: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", out_of_threads)
    refusal = refused([URL])
    assert (refusal.kind.status, refusal.headers, no_connection) == (503, {"Retry-After": "5"}, [])


def test_the_hard_stop_passes_what_is_closed_already() -> None:
    closed, (ours, theirs) = socket.socket(), socket.socketpair()
    closed.close()
    with open_session() as session, ours, theirs:
        session.get_adapter("https://").sockets.extend([closed, ours.dup()])  # type: ignore[attr-defined]
        with photo_urls._hard_stop(session, 0.05):
            assert ours.recv(1) == b""  # would wait for ever


def test_nothing_waits_for_the_deadline_of_what_is_done(answer_with: Callable[..., Server]) -> None:
    answer_with(b"x")
    PhotoUrlFetcher(Settings()).fetch_all([URL], ACCOUNT)
    assert not [
        clock
        for clock in threading.enumerate()
        if isinstance(clock, threading.Timer) and not clock.finished.is_set()
    ]


def test_a_certificate_that_is_not_valid_is_named(
    answer_with: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*args: Any, **kwargs: Any) -> Any:
        raise requests.exceptions.SSLError("self-signed certificate of 10.0.0.1")

    monkeypatch.setattr(answer_with(b""), "send", send)
    with pytest.raises(ProblemError, match="its certificate is not valid"):
        PhotoUrlFetcher(Settings()).fetch_all([URL], ACCOUNT)


def test_the_stop_of_all_photos_ends_a_connection_that_was_kept_from_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()

    def fetch(self: PhotoUrlFetcher, session: Any, url: str, name: str, deadline: float) -> bytes:
        if name == "photo 1":
            session.get_adapter("https://").sockets.append(ours.dup())
            return b""
        return ours.recv(1)  # would wait for ever

    monkeypatch.setattr(PhotoUrlFetcher, "_fetch", fetch)
    monkeypatch.setattr(photo_urls, "_DEADLINE_S", 0.05)
    with ours, theirs:
        assert PhotoUrlFetcher(Settings()).fetch_all([URL, URL], ACCOUNT) == [b"", b""]


class OverAtOnce(threading.Timer):
    """Fires before anything else happens."""

    def start(self) -> None:
        self.function(*self.args, **self.kwargs)


def test_a_connection_made_after_the_hard_stop_is_closed_unused(
    monkeypatch: pytest.MonkeyPatch, resolve_to: Callable[[str], None]
) -> None:
    """As of a second photo when the first has taken nearly all of the time."""
    resolve_to("93.184.216.34")
    ours, theirs = socket.socketpair()

    def connect(address: Any, timeout: float, **kwargs: Any) -> socket.socket:
        ours.settimeout(timeout)
        return ours

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    monkeypatch.setattr(threading, "Timer", OverAtOnce)
    with theirs:
        error = refused([URL])
        assert theirs.recv(1) == b""  # not even the greeting of TLS
    assert (error.kind.slug, "did not answer in time" in error.detail) == ("photo-url-unreachable", True)
