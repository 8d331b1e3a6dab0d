"""Wait until the installation is ready, tag the three samples through the public API and print their tags.

`python -m samples.welcome` reads TAGSMITH_HOST, TAGSMITH_PORT and TAGSMITH_VAR (for the key and, when
something fails, for where the logs are) and nothing else of the installation. Ends with status 1 and one
message on failure.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog.settings import Settings
from samples.client import ApiError, Client, Sample, read_samples, url_of

# A first start makes a database and loads the model: seconds on idle cores, minutes where others keep them busy.
READY_WITHIN_S = 300
TAGGED_WITHIN_S = 60
POLL_INTERVAL_S = 0.2

COLUMNS = ("attribute", "value", "confidence", "decision", "text", "photos")


class WelcomeError(Exception):
    """Says what did not happen and where to look."""


# Whose log says why something is missing.
LOGS = {"database": "postgres.log", "broker": "redis.log", "worker": "worker.log"}


def last_words(log: Path) -> str:
    """The last line of a log, which is where a process that died says why; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:  # the process has not come as far as a log
        return ""
    return lines[-1] if lines else ""


def not_ready(missing: str, logs: Path) -> WelcomeError:
    log = logs / LOGS.get(missing.partition(" and ")[0], "web.log")
    said = last_words(log)
    return WelcomeError(
        f"Not ready in {READY_WITHIN_S} s, still waiting for {missing}: see {log}"
        + (f", which ends with: {said}" if said else "")
    )


def what_is_missing(status: int, body: bytes) -> str:
    """From the answer of /readyz: which checks fail, as a person says it."""
    try:
        answer = json.loads(body)
        failing = [name for name in ("database", "broker", "worker") if not answer[name]]
    except (ValueError, KeyError, TypeError):
        return f"the service (HTTP {status})"
    return " and ".join(failing) or f"the service (HTTP {status})"


def wait_until_ready(client: Client, logs: Path) -> None:
    """Returns once /readyz is fine; tells on stderr what is waited for whenever that changes."""
    deadline = time.monotonic() + READY_WITHIN_S
    told = ""
    while True:
        try:
            status, body = client.request("GET", "/readyz")
            if status == 200:
                return
            missing = what_is_missing(status, body)
        except OSError:
            missing = "web"
        if time.monotonic() > deadline:
            raise not_ready(missing, logs)
        if missing != told:
            print(f"Waiting for {missing} ...", file=sys.stderr, flush=True)
            told = missing
        time.sleep(POLL_INTERVAL_S)


def tag(client: Client, samples: Sequence[Sample], logs: Path) -> list[dict[str, Any]]:
    """Upload all samples, then wait for each. Returns their ended jobs, in the order of the samples."""
    job_ids = [client.upload(sample)["job"]["id"] for sample in samples]
    deadline = time.monotonic() + TAGGED_WITHIN_S
    jobs = []
    for job_id in job_ids:
        job = client.job(job_id, wait_s=10)
        while job["status"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise WelcomeError(
                    f"Job {job_id} is still {job['status']} after {TAGGED_WITHIN_S} s: see {logs}/worker.log"
                )
            job = client.job(job_id, wait_s=10)
        if job["status"] != "succeeded":
            raise WelcomeError(f"Job {job_id} {job['status']} ({job['error']}): see {logs}/worker.log")
        jobs.append(job)
    return jobs


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def table(tags: Sequence[dict[str, Any]]) -> str:
    """Tags as aligned lines; `text` and `photos` are the evidence: what each alone gives the same value."""
    rows = [
        (
            entry["attribute"],
            "-" if entry["value"] is None else entry["value"],
            percent(entry["confidence"]),
            entry["decision"],
            percent(entry["evidence"]["text"]),
            percent(entry["evidence"]["photos"]),
        )
        for entry in tags
    ]
    widths = [max(len(row[column]) for row in [COLUMNS, *rows]) for column in range(len(COLUMNS))]
    is_number = [name in ("confidence", "text", "photos") for name in COLUMNS]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in [COLUMNS, *rows]
    )


def welcome(base_url: str, var: Path) -> None:
    logs = var / "log"
    with Client(base_url) as anyone:
        wait_until_ready(anyone, logs)
    print(f"Tagsmith is ready on {base_url}", flush=True)
    key = (var / "api-key").read_text(encoding="utf-8").strip()
    samples = read_samples()
    with Client(base_url, key) as client:
        jobs = tag(client, samples, logs)
    for sample, job in zip(samples, jobs, strict=True):
        print(f"\n{sample.title}\n{table(job['tags'])}")
    print(
        f"\nYour own product: {base_url} (the key is in {var / 'api-key'}). Ctrl-C stops everything.",
        flush=True,
    )


def main() -> int:
    settings = Settings.load()
    try:
        welcome(url_of(settings.host, settings.port), settings.var)
    except (WelcomeError, ApiError, OSError) as error:
        print(f"The samples could not be tagged. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
