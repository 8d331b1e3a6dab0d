"""The remote-control commands by which workers change their checkpoint: their two ends.

A command is answered at once, on the thread that also takes messages; how a change went is asked for until every
worker that answered has an outcome or is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from celery.worker.control import Panel

from workers.served import Served

LOAD, SERVED = "tagsmith_load", "tagsmith_served"
POLL_S = 0.5
# A worker answers while it loads, seconds late where its cores are busy. One that is silent for so long has died.
SILENT_S = 30.0

# By worker: `Served.report`, with `silent` where it was the last that the worker gave, or `{"error": …}` of Celery.
Reports = dict[str, dict[str, Any]]


def answer_commands(served: Served) -> None:
    """Register both commands in this worker process, before its consumer starts."""

    def load(state: Any, checkpoint: str, **_: Any) -> dict[str, Any]:
        served.change_to(Path(checkpoint))
        return served.report()

    def report(state: Any, **_: Any) -> dict[str, Any]:
        return served.report()

    Panel.register(load, name=LOAD, args=[("checkpoint", str)])
    Panel.register(report, name=SERVED, type="inspect")


def ask_to_load(celery: Celery, checkpoint: Path, *, answer_s: float, load_s: float) -> Reports:
    """Tell every worker to change; the reports of those that answered within `answer_s`, once all have an outcome or
    have been silent for SILENT_S, or `load_s` have passed.
    """
    reports = _ask(celery, LOAD, {"checkpoint": str(checkpoint)}, timeout=answer_s)
    began = time.monotonic()
    heard_at = dict.fromkeys(reports, began)
    while (waiting := [name for name in reports if _is_loading(reports[name])]) and (
        time.monotonic() < began + load_s
    ):
        time.sleep(POLL_S)
        answers = _ask(celery, SERVED, {}, timeout=answer_s, destination=waiting, limit=len(waiting))
        now = time.monotonic()
        reports |= answers
        heard_at |= dict.fromkeys(answers, now)
        reports |= {
            name: reports[name] | {"silent": True} for name in waiting if now - heard_at[name] >= SILENT_S
        }
    return reports


def _ask(celery: Celery, command: str, arguments: dict[str, Any], **options: Any) -> Reports:
    replies = celery.control.broadcast(command, arguments=arguments, reply=True, **options) or []
    return {worker: report for reply in replies for worker, report in reply.items()}


def _is_loading(report: dict[str, Any]) -> bool:
    return bool(report.get("change")) and report["change"]["status"] == "loading" and not report.get("silent")


def outcome(report: dict[str, Any], checkpoint: Path) -> tuple[bool, str]:
    """Whether a worker serves what it was asked to, and its line for a person."""
    change = report.get("change")
    if not change:
        return False, f"does not know the command ({report.get('error', report)}): update and restart it"
    if report.get("silent"):
        return False, (
            f"has not answered for {SILENT_S:g} s while it loaded {change['checkpoint']}: look into its log;"
            " where it was started again it serves what TAGSMITH_CHECKPOINT names"
        )
    if change["checkpoint"] != str(checkpoint):
        return False, f"is busy with {change['checkpoint']}, which somebody else asked for: ask again later"
    serves = f"serves {report['name']} {report['version'][:12]}"
    if change["status"] == "refused":
        return False, f"{serves} as before, and refused {checkpoint}: {change['reason']}"
    if change["status"] == "loading":
        return False, f"{serves} and still loads {checkpoint}: ask for it again, or look into its log"
    return True, f"{serves}, loaded in {change['seconds']:.1f} s"


def tell(reports: Reports, checkpoint: Path, say: Callable[[str], None], warn: Callable[[str], None]) -> bool:
    """A line for each worker; whether all serve it. Warns where the next start would serve something else."""
    fine = bool(reports)
    for worker, report in sorted(reports.items()):
        serves, line = outcome(report, checkpoint)
        (say if serves else warn)(f"{worker} {line}")
        fine = fine and serves
    settings = {
        str(report["setting"]) for report in reports.values() if not report.get("setting_is_served", True)
    }
    for setting in sorted(settings):
        warn(
            f"TAGSMITH_CHECKPOINT of these workers is {setting}: the next start serves that, and GET /v1/model tells"
            " of what web's own setting names; set it too, or let it name a symbolic link and move the link"
        )
    return fine
