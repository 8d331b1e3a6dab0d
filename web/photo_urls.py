"""Fetches photos from addresses that a client names, and from nowhere it should not reach.

requests-hardened resolves a name once, refuses every address that is not public, and connects to the
address it checked; redirects, proxies of the environment and credentials of a netrc file are off. On top of
that: https alone, a cap on bytes, and one deadline for all photos of a request that no slow server can
stretch. Knows nothing of pictures: what arrives is judged like an uploaded file.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError

from catalog.settings import Settings
from web import problems
from web.budget import Budget
from web.photos import too_large
from web.problems import ProblemError
from web.time_limit import calls_after

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 3.0, 5.0
# All photos of one request together: a client waits for this answer.
_DEADLINE_S = 20.0
_CHUNK_BYTES = 64 * 1024
# Each fetch holds a thread of the server while a stranger's server answers: requests at once, and of one account.
_REQUESTS_AT_ONCE, _REQUESTS_OF_ONE = 4, 3
_USER_AGENT = "Tagsmith/1 (product photo fetcher)"


class PhotoUrlFetcher:
    """Safe to share between threads; holds no connection between requests."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = settings.max_photo_bytes
        self._slots = Budget(_REQUESTS_AT_ONCE, _REQUESTS_OF_ONE)
        self._clock = clock

    def fetch_all(self, urls: Sequence[str], tenant_id: str) -> list[bytes]:
        """The bytes behind each address, in order; one bad address refuses all. Raises ProblemError."""
        for number, url in enumerate(urls, 1):
            _check_form(url, f"photo {number}")
        if not urls:
            return []
        busy = "Too many photos are being fetched; try again shortly."
        with self._slots.take(1, tenant_id, busy), open_session() as session:
            deadline = self._clock() + _DEADLINE_S  # before the stop, which looks like the end of a body
            # One stop for all of them: a connection that was kept from one photo serves the next of its host.
            with _hard_stop(session, _DEADLINE_S):
                return [
                    self._fetch(session, url, f"photo {number}", deadline)
                    for number, url in enumerate(urls, 1)
                ]

    def _fetch(self, session: requests.Session, url: str, name: str, deadline: float) -> bytes:
        self._check(deadline, name)
        try:
            with session.get(
                url, stream=True, headers={"Accept": "image/*", "Accept-Encoding": "identity"}
            ) as response:
                return self._read(response, name, deadline)
        except InvalidIPAddress as error:
            raise ProblemError(
                problems.PHOTO_URL_REFUSED, f"{name}: the address is not on the public internet."
            ) from error
        # ValueError: of names that cannot be, and of numbers in headers with thousands of digits.
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise _unreachable(name, _reason(error)) from error

    def _read(self, response: requests.Response, name: str, deadline: float) -> bytes:
        if 300 <= response.status_code < 400:
            raise ProblemError(
                problems.PHOTO_URL_REFUSED, f"{name}: the address redirects; give the address it leads to."
            )
        if response.status_code != 200:
            raise _unreachable(name, f"the server answered {response.status_code}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
            raise _unreachable(name, "the server compressed the picture although it was asked not to")
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise too_large(name, self._max_bytes)
        data = bytearray()
        # read1 returns what has come; read would wait for a full chunk while a server drips bytes.
        while chunk := response.raw.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise too_large(name, self._max_bytes)
            self._check(deadline, name)
        self._check(deadline, name)
        if announced.isdecimal() and len(data) < int(announced):
            raise _unreachable(name, "the server closed the connection too early")
        return bytes(data)

    def _check(self, deadline: float, name: str) -> None:
        if self._clock() >= deadline:
            raise _unreachable(name, f"the photos did not arrive within {_DEADLINE_S:g} s")


def open_session() -> HTTPSession:
    """A session that reaches public addresses over https and nothing else."""
    session = _Session(
        Config(
            # Theirs would be mounted here and taken out below: `_StoppableAdapter` is one.
            ip_filter_enable=False,
            ip_filter_allow_loopback_ips=False,
            never_redirect=True,
            default_timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
            user_agent_override=_USER_AGENT,
        )
    )
    session.trust_env = False  # no proxy to hide behind, no netrc, no certificate bundle of the environment
    session.adapters.clear()
    session.mount("https://", _StoppableAdapter(is_https_proto=True))
    return session


class _Session(HTTPSession):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, ever: to say where a redirect leads requests reads all of its body first, unpacked and of any size."""


def _check_form(url: str, name: str) -> None:
    """Refuses what is no address to fetch from, without fetching. Raises ProblemError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ProblemError(problems.PHOTO_URL_REFUSED, f"{name}: the address is not a URL.") from error
    if parts.scheme != "https":
        raise ProblemError(problems.PHOTO_URL_REFUSED, f"{name}: the address must start with https://.")
    if not host:
        raise ProblemError(problems.PHOTO_URL_REFUSED, f"{name}: the address names no host.")
    if parts.username is not None or parts.password is not None:
        raise ProblemError(
            problems.PHOTO_URL_REFUSED, f"{name}: the address must not contain a user name or password."
        )
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url):
        raise ProblemError(
            problems.PHOTO_URL_REFUSED, f"{name}: the address must not contain spaces or control characters."
        )
    if _is_literal(host) and not _is_public(host):
        raise ProblemError(problems.PHOTO_URL_REFUSED, f"{name}: the address is not on the public internet.")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False  # a name: judged by what it resolves to
    return True


def _is_public(address: str) -> bool:
    """Beside what requests-hardened refuses, 6to4 among it: Python calls some reserved ranges neither private nor
    global, such as IPv4-compatible ::/96 and site-local fec0::/10."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _is_public(str(ip.ipv4_mapped))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_reserved and not ip.is_multicast


def _unreachable(name: str, reason: str) -> ProblemError:
    return ProblemError(problems.PHOTO_URL_UNREACHABLE, f"{name} could not be fetched: {reason}.")


def _reason(error: Exception) -> str:
    """In our words: the library's message would tell a stranger what our network looks like."""
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not valid"
    return "no connection, or it was cut off"


class _StoppableAdapter(IPFilterAdapter):
    """Keeps a second handle on each connection's socket, through which `_hard_stop` can end it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sockets: list[socket.socket] = []
        self._is_over = threading.Event()

    def stop(self) -> None:
        """Ends every connection: those there are, and any that is made later as soon as it is made."""
        self._is_over.set()  # first: a connection either finds it set or has put its socket into the list by then
        for connection in list(self.sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by the other side already

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        """`host` of what the parent returns is the address that will be connected to."""
        host_params, pool_kwargs = super().build_connection_pool_key_attributes(*args, **kwargs)
        if not _is_public(host_params["host"].strip("[]")):
            raise InvalidIPAddress(host_params["host"])
        return host_params, pool_kwargs

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        sockets, is_over = self.sockets, self._is_over

        class Connection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                connection = super()._new_conn()
                sockets.append(connection.dup())  # survives the wrapping in TLS, which detaches the first
                if is_over.is_set():
                    connection.close()
                    raise ConnectTimeoutError(self, "the time was over before there was a connection")
                return connection

        pool.ConnectionCls = Connection
        return pool


@contextmanager
def _hard_stop(session: requests.Session, seconds: float) -> Iterator[None]:
    """Timeouts of sockets start anew with each byte; this one does not. Nothing comes over the session after it."""
    adapter = session.get_adapter("https://")
    if not isinstance(adapter, _StoppableAdapter):
        yield
        return
    try:
        with calls_after(seconds, adapter.stop):
            yield
    finally:
        for connection in adapter.sockets:
            connection.close()
        adapter.sockets.clear()
