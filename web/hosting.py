"""What every answer carries and which requests are answered at all: host names, security headers, ids.

A service bound to loopback answers only to loopback names. Without that check any web page could point a
name of its own at 127.0.0.1 (DNS rebinding) and read our answers as its own.
"""

from __future__ import annotations

import ipaddress
import uuid

from flask import Flask, Response, g, request
from werkzeug.http import parse_options_header

from web import problems
from web.problems import ProblemError

# The page loads nothing from elsewhere and runs no inline script; `data:` and `blob:` are its previews.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or address, without port) can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def register(app: Flask, bound_to: str) -> None:
    loopback_only = is_loopback(bound_to)

    def check_host() -> None:
        g.request_id = uuid.uuid4().hex
        if loopback_only and not is_loopback(_host_name(request.host)):
            raise ProblemError(problems.UNKNOWN_HOST, problems.UNKNOWN_HOST.advice)

    def finish(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        # Products, tags and tokens belong in no shared cache; static files set their own rule.
        if not response.headers.get("Cache-Control"):
            response.headers["Cache-Control"] = "no-store"
        response.headers["X-Request-Id"] = g.get("request_id", "")
        return response

    app.before_request(check_host)
    app.after_request(finish)


def _host_name(host: str) -> str:
    """The Host header without its port."""
    host, _ = parse_options_header(host)
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and ":" in host else host
