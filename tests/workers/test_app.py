"""The Celery application: made when it is asked for, and without the model until a worker starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from celery import signals
from celery.beat import Scheduler
from celery.exceptions import Reject

from catalog.errors import BrokerUnavailable, DatabaseUnavailable
from catalog.queue import SWEEP, TASK, make_celery, make_message
from catalog.settings import Settings
from catalog.sweep import SweepResult
from workers.app import Serving, create_app
from workers.metrics import WorkerMetrics
from workers.panics import Panic

ROOT = Path(__file__).parent.parent.parent


def no_model(settings: Settings) -> None:
    raise AssertionError("the model was loaded outside a worker process")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TAGSMITH_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_application_knows_its_two_tasks_and_loads_no_model(settings: Settings) -> None:
    celery = create_app(settings, no_model)
    celery.finalize()
    assert {name for name in celery.tasks if name.startswith("tagsmith.")} == {TASK, SWEEP}


def test_beat_sends_the_sweep_and_lets_it_expire(settings: Settings) -> None:
    (entry,) = create_app(settings, no_model).conf.beat_schedule.values()
    assert entry["task"] == SWEEP
    assert entry["schedule"].seconds == settings.sweep_interval_s
    assert entry["options"]["expires"] > 0


def test_beat_goes_on_sending_when_the_clock_is_set_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    celery = create_app(settings, no_model)
    steady = 1000.0
    monkeypatch.setattr("catalog.queue.time.monotonic", lambda: steady)
    sent: list[str] = []
    monkeypatch.setattr(Scheduler, "apply_entry", lambda self, entry, producer=None: sent.append(entry.task))
    scheduler = Scheduler(celery, lazy=True)
    scheduler.setup_schedule()
    scheduler.tick()
    monkeypatch.setattr(celery, "now", lambda: datetime.now(UTC) - timedelta(hours=1))
    for _ in range(3):
        steady += settings.sweep_interval_s + 0.1
        scheduler.tick()
    assert sent == [SWEEP] * 3


def test_a_worker_whose_clock_is_wrong_by_a_time_zone_still_sweeps(settings: Settings) -> None:
    (entry,) = create_app(settings, no_model).conf.beat_schedule.values()
    assert timedelta(seconds=entry["options"]["expires"]) > timedelta(hours=14 + 12)


def tag_task(settings: Settings) -> Any:
    task = create_app(settings, no_model).tasks[TASK]
    task.request_stack.push(type("Request", (), {"delivery_info": {"routing_key": "bulk"}})())
    return task


def test_a_message_that_there_is_no_room_for_goes_back_to_its_queue(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Serving, "tag", lambda *_, **__: False)
    with pytest.raises(Reject) as rejected:
        tag_task(settings).run(make_message(["job_1"]))
    assert rejected.value.requeue


def test_a_panic_of_a_library_ends_the_message_as_any_error_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class RustPanic(BaseException):
        pass

    monkeypatch.setattr(Serving, "tag", Mock(side_effect=RustPanic("index out of bounds")))
    with pytest.raises(Panic, match="index out of bounds"):
        tag_task(settings).run(make_message(["job_1"]))


def test_what_a_sweep_did_is_counted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    done = SweepResult(sent=3, unsent=2, failed=1)
    monkeypatch.setattr("workers.app.sweep", lambda *_: done)
    serving = Serving(settings, make_celery(settings), Mock())
    serving._metrics, serving._engine = WorkerMetrics(), Mock()
    serving.sweep()
    serving.sweep()
    counted = serving._metrics.registry.get_sample_value
    assert counted("tagsmith_worker_sweeps_total") == 2
    assert [
        counted("tagsmith_worker_swept_jobs_total", {"outcome": outcome})
        for outcome in ("sent", "unsent", "failed", "cancelled")
    ] == [6, 4, 2, 0]


def test_a_sweep_that_the_database_refuses_keeps_this_worker_from_taking_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = Mock(
        side_effect=[DatabaseUnavailable("too many clients"), BrokerUnavailable("away"), SweepResult()]
    )
    monkeypatch.setattr("workers.app.sweep", swept)
    serving = Serving(settings, make_celery(settings), Mock())
    serving._metrics, serving._engine = WorkerMetrics(), Mock()
    with pytest.raises(DatabaseUnavailable):
        serving.sweep()
    assert not serving.wants_any()
    with pytest.raises(BrokerUnavailable):
        serving.sweep()
    serving.sweep()
    assert serving.wants_any()


def test_a_sweep_takes_those_that_wait_along(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = Mock()
    forgotten = Mock(side_effect=[None, BrokerUnavailable("away"), ZeroDivisionError, None])
    monkeypatch.setattr(Serving, "sweep", swept)
    monkeypatch.setattr("workers.app.forget_sweeps", forgotten)
    task = create_app(settings, no_model).tasks[SWEEP]
    task.run()
    task.run()
    assert (forgotten.call_count, swept.call_count) == (2, 2), "a broker that is away stops no sweep"
    with pytest.raises(ZeroDivisionError):
        task.run()
    task.run()
    assert swept.call_count == 3, "no error stops those after it"


def test_a_task_outside_a_worker_process_says_where_it_belongs(settings: Settings) -> None:
    task = tag_task(settings)
    with pytest.raises(RuntimeError, match=r"celery -A workers\.app worker"):
        task.run(make_message(["job_1"]))


def test_importing_the_module_reads_no_setting_and_asking_for_the_application_does() -> None:
    result = run_python(
        "import workers.app; print('imported'); workers.app.app", TAGSMITH_NO_SUCH_SETTING="1"
    )
    assert result.stdout == "imported\n"
    assert "TAGSMITH_NO_SUCH_SETTING" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_worker_has_a_name_that_no_other_process_has(settings: Settings) -> None:
    celery = create_app(settings, no_model)
    instance = SimpleNamespace(hostname="celery@shop", quiet=False)
    signals.celeryd_init.send(sender="celery@shop", instance=instance, conf=celery.conf, options={})
    assert instance.hostname.startswith(f"celery@shop-{os.getpid()}-")
    assert not instance.quiet


def test_with_json_logs_celery_prints_nothing_beside_them() -> None:
    done = run_python(
        "import celery, os; from types import SimpleNamespace; from workers.app import app; "
        "worker = SimpleNamespace(hostname='celery@shop'); "
        "celery.signals.celeryd_init.send(sender='', instance=worker, conf=app.conf, options={}); "
        "os.write(1, b'Warm shutdown'); assert worker.quiet",
        TAGSMITH_LOG_JSON="true",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_with_json_logs_the_warning_to_a_worker_of_root_is_json_as_well() -> None:
    done = run_python(
        "import os; from celery.apps.worker import Worker; from workers.app import app; "
        "os.getuid = os.geteuid = lambda: 0; "
        "worker = object.__new__(Worker); worker.app, worker.hostname = app, 'celery@shop'; "
        "worker.on_before_init()",
        TAGSMITH_LOG_JSON="true",
    )
    assert done.returncode == 0
    assert "superuser" in json.loads(done.stderr)["event"]


def test_a_worker_that_is_told_to_stop_while_it_loads_its_model_ends_at_once(settings: Settings) -> None:
    class Broken(Exception):
        pass

    while_loading: list[Any] = []

    def load(settings: Settings) -> None:
        while_loading.append(signal.getsignal(signal.SIGTERM))
        raise Broken

    (step,) = create_app(settings, load).steps["worker"]
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(Broken):
            step(None).start(None)
        assert while_loading == [signal.SIG_DFL]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_beat_needs_does_not_import_torch() -> None:
    result = run_python(
        "import sys; from workers.app import app; app.finalize(); print('torch' in sys.modules)"
    )
    assert (result.stdout, result.stderr) == ("False\n", "")
