"""Who is asking: a bearer API key, or the token of a page that this machine's own browser opened.

The page's token never comes from a cookie, so no other site can make a browser send it (no CSRF), and it is
handed out only to a request that could have come from nowhere but a page of this service on this machine.
"""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from flask import Request, g, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from catalog import tenants
from catalog.database import transaction
from web import problems
from web.hosting import is_loopback
from web.problems import ProblemError
from web.services import services

_PAGE_TOKEN_PREFIX = "page_"
PAGE_TOKEN_LIFETIME_S = 12 * 3600
# Set by proxies: somebody elsewhere is asking through this machine.
_FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via")


class PageTokens:
    """Each stands for a key and ends with it. Signed with a secret of this process: a restart ends them as well, and
    the page asks for a new one.
    """

    def __init__(self) -> None:
        self._serializer = URLSafeTimedSerializer(secrets.token_bytes(32), salt="page")

    def issue(self, key_hash: str) -> str:
        return _PAGE_TOKEN_PREFIX + str(self._serializer.dumps(key_hash))

    def key_hash(self, token: str) -> str | None:
        try:
            key_hash = self._serializer.loads(
                token.removeprefix(_PAGE_TOKEN_PREFIX), max_age=PAGE_TOKEN_LIFETIME_S
            )
        except BadSignature:
            return None
        return str(key_hash)


def require_key() -> None:
    """Before each call under /v1: finds the tenant, before a byte of the body is read."""
    g.tenant_id = _authenticate(_bearer(request))


def tenant_id() -> str:
    tenant: str = g.tenant_id
    return tenant


def page_token(asking: Request, key_file: Path) -> str:
    """A token for the page that a browser on this machine opened, or a refusal."""
    if not (is_loopback(services().settings.host) and _comes_from_own_page(asking)):
        raise ProblemError(problems.PAGE_NEEDS_KEY, problems.PAGE_NEEDS_KEY.advice)
    try:
        key = key_file.read_text("utf-8").strip()
    except FileNotFoundError as error:
        raise ProblemError(
            problems.PAGE_NEEDS_KEY, "There is no first API key yet: run `python -m catalog prepare`."
        ) from error
    _authenticate(key)
    return services().page_tokens.issue(tenants.hash_key(key))


def _comes_from_own_page(asking: Request) -> bool:
    """From this machine, not through a proxy, and sent by a script of our own origin."""
    try:
        peer_is_local = ipaddress.ip_address(asking.remote_addr or "").is_loopback
    except ValueError:
        peer_is_local = False
    # A browser always writes Origin on a POST; it names the address that the person sees, so a page
    # reached through a proxy under another name is told apart here.
    try:
        origin = urlsplit(asking.headers.get("Origin", ""))
        same_origin = (
            origin.scheme == "http" and origin.netloc == asking.host and is_loopback(origin.hostname or "")
        )
    except ValueError:  # brackets with no IPv6 address in them
        same_origin = False
    fetched_by_us = asking.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    forwarded = any(header in asking.headers for header in _FORWARDING_HEADERS)
    return peer_is_local and same_origin and fetched_by_us and not forwarded


def _bearer(asking: Request) -> str:
    scheme, _, key = asking.headers.get("Authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise _unauthorized("The request has no API key. " + problems.UNAUTHORIZED.advice, "")
    return key


def _authenticate(key: str) -> str:
    tenant: str | None = None
    key_hash: str | None = None
    if key.startswith(_PAGE_TOKEN_PREFIX):
        key_hash = services().page_tokens.key_hash(key)
    elif key.startswith(tenants.KEY_PREFIX):
        key_hash = tenants.hash_key(key)
    if key_hash is not None:
        with transaction(services().engine) as session:
            tenant = tenants.tenant_of(session, key_hash)
    if tenant is None:
        raise _unauthorized(
            "The API key is not known. " + problems.UNAUTHORIZED.advice, ', error="invalid_token"'
        )
    return tenant


def _unauthorized(detail: str, challenge: str) -> ProblemError:
    return ProblemError(
        problems.UNAUTHORIZED, detail, headers={"WWW-Authenticate": f'Bearer realm="tagsmith"{challenge}'}
    )
