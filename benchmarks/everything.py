"""All benchmarks one after the other, each in a process of its own: one that fails is a line, and the others go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.installation import ROOT
from benchmarks.plan import STEPS, Step

LIMIT_S = 1800  # of one benchmark
STOPPED_WITHIN_S = 180  # with the installation that it started
LAST_LINES = 3
LOOK_S = 0.2
NOT_MEASURED = {"not_measured": "no CUDA device"}
Run = Callable[[Sequence[str]], dict[str, Any]]


class StepFailedError(Exception):
    """A benchmark gave no document, and what it said last."""


def measure(
    steps: Sequence[Step], machine: dict[str, Any], *, quick: bool, run: Run
) -> Iterator[dict[str, Any]]:
    """The document after each step: of each its own, or `failed` with the reason. `run` is given the command line of
    one.
    """
    found: dict[str, dict[str, Any]] = {}
    began, began_at = time.monotonic(), datetime.now(UTC)
    for number, step in enumerate(steps, 1):
        at = time.monotonic()
        print(f"[{number}/{len(steps)}] {step.name} ({(at - began) / 60:.0f} min so far)", file=sys.stderr)
        try:
            document = run([step.command, *step.options, *(step.quick if quick else ())])
        except StepFailedError as error:
            print(f"{step.name} failed: {error}", file=sys.stderr)
            document = {"failed": str(error)}
        found[step.name] = {**document, "took_s": round(time.monotonic() - at, 1)}
        yield {
            "at": began_at.isoformat(timespec="seconds"),
            "quick": quick,
            "took_s": round(time.monotonic() - began, 1),
            "machine": machine,
            "gpu": gpu(),
            "benchmarks": found,
        }


def keep(document: Mapping[str, Any], results: Path) -> Path:
    """Writes it, and returns where: of a run that is interrupted what was found so far stays in the part of its day,
    which a whole one replaces.
    """
    path, part = path_of(results, document), path_of(results, {**document, "quick": False, "benchmarks": {}})
    results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if path != part and not document["quick"]:
        part.unlink(missing_ok=True)
    return path


def gpu() -> dict[str, Any]:
    """What torch sees. Where it sees one, every benchmark above that runs a model ran on it."""
    import torch  # seconds that --help need not pay

    if not torch.cuda.is_available():
        return NOT_MEASURED
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
    }


def in_a_process(arguments: Sequence[str]) -> dict[str, Any]:
    """The document of `python -m benchmarks ARGUMENTS`; its progress goes on to stderr. Raises StepFailedError."""
    with tempfile.TemporaryDirectory(prefix="tagsmith-bench-") as folder:
        out, log = Path(folder) / "document.json", Path(folder) / "log"
        command = [sys.executable, "-m", "benchmarks", *arguments, "--json", "--out", str(out)]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stream)
        try:
            status = followed(process, log)
        finally:
            stop(process)
        if status or not out.exists():
            raise StepFailedError(reason(status, log.read_text(encoding="utf-8", errors="replace")))
        document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return document


def followed(process: subprocess.Popen[bytes], log: Path) -> int:
    """Its exit status; meanwhile its log is shown. By a file: a pipe would end only with the last process that an
    installation left behind. Raises StepFailedError where it takes too long.
    """
    deadline = time.monotonic() + LIMIT_S
    with log.open(encoding="utf-8", errors="replace") as written:
        while (status := process.poll()) is None:
            sys.stderr.write(written.read())
            if time.monotonic() > deadline:
                raise StepFailedError(f"not done in {LIMIT_S // 60} minutes")
            time.sleep(LOOK_S)
        sys.stderr.write(written.read())
    return status


def stop(process: subprocess.Popen[bytes]) -> None:
    """A termination lets it stop the installation that it started, which a kill would leave behind."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def reason(status: int, said: str) -> str:
    """The message that click ended with, or the last lines."""
    lines = said.splitlines()
    last = " / ".join(lines[-LAST_LINES:])
    if status < 0:
        return f"ended by {signal.Signals(-status).name}: {last}"
    messages = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    return (
        "\n".join(lines[messages[-1] :]).removeprefix("Error: ") if messages else f"status {status}: {last}"
    )


def failed(document: Mapping[str, Any]) -> list[str]:
    return [name for name, of in document["benchmarks"].items() if "failed" in of]


def path_of(results: Path, document: Mapping[str, Any]) -> Path:
    """Its day and kind of device; a second one of a day replaces the first. What is no whole run is called so, and
    replaces none.
    """
    kind = "cpu" if document["gpu"] == NOT_MEASURED else "gpu"
    whole = {step.name for step in STEPS} <= document["benchmarks"].keys() and not failed(document)
    what = "-trial" if document["quick"] else "" if whole else "-part"
    return results / f"{document['at'][:10]}-{kind}{what}.json"


def table(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    graphics = document["gpu"].get("name") or f"not measured: {document['gpu']['not_measured']}"
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, load {machine['load_1m']:.1f} "
        "before the run",
        f"GPU: {graphics}",
    ]
    if document["quick"]:
        lines.append("A trial: so few products and rounds say only that everything runs.")
    lines += ["", f"{'figure':<64}{'value':>10}{'min':>9}{'max':>9}  goal"]
    for name, of in document["benchmarks"].items():
        if "failed" in of:
            lines.append(f"{name}: FAILED: {of['failed']}")
        else:
            lines += [row(line) for line in of.get("headline", [])]
    lines += ["", f"{document['took_s'] / 60:.0f} minutes"]
    return "\n".join(lines)


def row(line: Mapping[str, Any]) -> str:
    low, high = line["range"] or ("", "")
    title = f"{line['figure']}, {line['unit']}" if line["unit"] else line["figure"]
    figures = f"{number(line['value']):>10}{number(low):>9}{number(high):>9}"
    return f"{title:<64}{figures}  {goal(line)}".rstrip()


def number(value: float | str) -> str:
    """With three figures that say something."""
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def goal(line: Mapping[str, Any]) -> str:
    wanted = line["goal"]
    if wanted is None:
        return ""
    reached = line["value"] <= wanted if line["goal_is"] == "at most" else line["value"] >= wanted
    return f"{line['goal_is']} {wanted:g}: {'reached' if reached else 'MISSED'}"
