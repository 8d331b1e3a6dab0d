"""The Celery application of the workers: `celery -A workers.app worker …` and `celery -A workers.app beat`.

Celery asks this module for `app`; it is made on that first request (see `__getattr__`), so importing connects
nothing and reads no setting. The model belongs to the worker process alone: a boot step loads it before the
first message is taken, and beat, which has no worker boot steps, never imports torch.

SIGTERM is a soft shutdown: nothing more is taken, what is claimed is finished, and what is not finished within
DRAIN_S is put back for another worker. Celery's own soft shutdown (REMAP_SIGTERM=SIGQUIT) is not it: with a
thread pool it always sleeps for its full time-out and then cannot cancel anything.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from celery import Celery, Task, bootsteps, signals
from celery.exceptions import Reject

from catalog.database import make_engine
from catalog.errors import DatabaseBusy, DatabaseUnavailable, SettingsError, Unavailable
from catalog.log import configure_logging
from catalog.photo_store import PhotoStore
from catalog.queue import SWEEP, SWEEPS, TASK, forget_sweeps, make_celery, send, waiting
from catalog.settings import Settings
from catalog.sweep import sweep
from catalog.views import Lane
from workers import memory
from workers.batch_runner import Limits
from workers.batcher import Batcher
from workers.breaker import Breaker
from workers.control import answer_commands
from workers.health import Heartbeat
from workers.identity import node_name, worker_identity
from workers.lane_order import POLL_S, LaneOrder, wants_bulk
from workers.leases import LeaseKeeper
from workers.metrics import WorkerMetrics
from workers.panics import panics_as_exceptions
from workers.room import Room
from workers.served import Prepared, Runtime, Served, collate, forward, length, new_photos
from workers.tasks import TagProducts

if TYPE_CHECKING:
    from workers.runtime import ModelRuntime

DRAIN_S = 25.0
PUT_BACK_S = 5.0
EXIT_DEVICE_FAILED = 70  # EX_SOFTWARE of sysexits.h

log = structlog.get_logger(__name__)


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _app() -> Celery:
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise SystemExit(f"tagsmith: {error}") from None  # of a traceback Celery's part alone fills a screen
    return create_app(settings, _load_model_runtime)


def _load_model_runtime(settings: Settings) -> Any:
    model_runtime = _model_runtime()
    with memory.loading():
        return model_runtime.load(settings)


@functools.cache
def _model_runtime() -> type[ModelRuntime]:
    """Imported here, because it brings torch, which beat does not need."""
    memory.spare()
    with memory.importing():
        from models.towers import import_libraries
        from workers.runtime import ModelRuntime

        import_libraries()
    return ModelRuntime


def create_app(settings: Settings, load_runtime: Callable[[Settings], Any]) -> Celery:
    """Make the application; `load_runtime` is called once, in a worker process, before it takes messages."""
    celery = make_celery(settings)
    serving = Serving(settings, celery, load_runtime)
    sweeping = threading.Lock()

    @signals.celeryd_init.connect(weak=False)
    def tell_apart(instance: Any, conf: Any, **_: Any) -> None:
        if conf is not celery.conf:
            return
        instance.hostname = node_name(instance.hostname)
        if settings.log_json:
            # Celery writes a banner and "Warm shutdown" there, past every logger; all else is in the log.
            instance.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        configure_logging(settings)  # to a worker of root Celery has something to say before it asks for that

    @signals.setup_logging.connect(weak=False)
    def set_up_logging(**_: Any) -> None:
        configure_logging(settings)
        # Two lines for each message would cost more than the message and tell nothing that metrics do not; and for one
        # that is given back for want of room a traceback.
        logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
        logging.getLogger("celery.app.trace").setLevel(logging.ERROR)

    @celery.task(name=TASK, bind=True, shared=False)
    def tag_products(self: Task, message: dict[str, Any]) -> None:
        # After a BaseException Celery would neither acknowledge the message nor take another in its place.
        with panics_as_exceptions():
            taken = serving.tag(message, lane=self.request.delivery_info["routing_key"])
        if not taken:
            raise Reject("not by this worker, or not now", requeue=True)

    @celery.task(name=SWEEP, shared=False)
    def sweep_jobs() -> None:
        # One at a time in a process; another process may sweep as well, they skip each other's rows.
        if not sweeping.acquire(blocking=False):
            return
        try:
            try:
                forget_sweeps(celery)
            except Unavailable as error:
                log.warning("sweeps that wait are still there", reason=str(error))
            serving.sweep()
        except Unavailable as error:
            log.warning("not swept; the next sweep is due soon", reason=str(error))
        finally:
            sweeping.release()

    class ServingStep(bootsteps.StartStopStep):
        """Loads the model before the consumer starts, and drains after the consumer has stopped."""

        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            if SWEEPS not in celery.amqp.queues.consume_from:
                log.error("this worker takes no sweeps: start it with --queues sweep,interactive,bulk")
            # Loading takes long, and Celery's handler would only note that it should stop afterwards. There is no job
            # to finish yet, so the signal ends the process at once.
            celerys = signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                serving.start()
            finally:
                signal.signal(signal.SIGTERM, celerys)

        def stop(self, parent: Any) -> None:
            serving.stop()

        def terminate(self, parent: Any) -> None:
            serving.stop()

    celery.steps["worker"].add(ServingStep)
    celery.conf.broker_transport_options |= {
        "queue_order_strategy": functools.partial(LaneOrder, serving.wants_any, serving.wants_bulk),
        "polling_interval": POLL_S,
    }
    celery.conf.worker_consumer = "workers.consumer:SurvivingConsumer"
    return celery


# A batch shared out among cores ends when its slowest part does, and one on a GPU has its tags made by the processor:
# with a second one behind it neither stands idle meanwhile. A person's product waits for neither of them.
IN_FLIGHT = 2
FOR_URGENT = 1


class Serving:
    """What one worker process owns besides Celery: the runtime, the batcher and everything around them."""

    def __init__(self, settings: Settings, celery: Celery, load_runtime: Callable[[Settings], Any]) -> None:
        self._settings = settings
        self._celery = celery
        self._load_runtime = load_runtime
        self._room = Room(settings.max_ready)
        self._breaker = Breaker()
        self._tag: TagProducts | None = None

    def tag(self, message: dict[str, Any], lane: Lane) -> bool:
        if self._tag is None:
            raise RuntimeError("the model is not loaded: run this task in `celery -A workers.app worker`")
        return self._tag(message, lane)

    def wants_any(self) -> bool:
        return not self._breaker.open

    def wants_bulk(self) -> bool:
        return wants_bulk(self._room, self._settings)

    def sweep(self) -> None:
        messages = functools.partial(waiting, self._celery)
        try:
            with self._breaker.trying():
                result = sweep(self._engine, self._send, messages, self._settings)
        except DatabaseUnavailable as error:
            if not isinstance(error, DatabaseBusy):
                self._breaker.failed()
            raise
        self._breaker.succeeded()
        self._metrics.swept(result)

    def start(self) -> None:
        settings = self._settings
        worker = worker_identity()
        self._metrics = WorkerMetrics()
        self._engine = make_engine(settings)
        self._batcher: Batcher[Prepared, Any] = Batcher(
            forward,
            limits=Limits(
                max_batch=settings.max_batch,
                max_tokens=settings.max_batch_tokens,
                max_weight=settings.max_batch_photos,
                max_ready=settings.max_ready,
                forward_timeout_s=settings.forward_timeout_s,
                in_flight=IN_FLIGHT,
                for_urgent=FOR_URGENT,
                patient_forward_s=settings.bulk_forward_s,
            ),
            collate=collate,
            length=length,
            weight=new_photos,
            is_current=lambda prepared: prepared.runtime is self._served.runtime,
            give_up=self._give_up,
            observe=self._metrics.batch_done,
        )
        self._served = Served(self._load_runtime, settings, observe=self._model_served)
        answer_commands(self._served)
        # A connection of its own: where the database is slow, messages hold all others, and a renewal that waited for
        # one would come too late.
        self._lease_engine = make_engine(settings.model_copy(update={"database_pool": 1}))
        self._leases = LeaseKeeper(self._lease_engine, settings, self._send)
        self._heartbeat = Heartbeat(settings.var, worker, self._batcher.alive)
        self._metrics.watch(
            ready=self._batcher.ready, held=self._leases.held, max_batch=lambda: self._batcher.max_batch
        )
        self._tag = TagProducts(
            settings=settings,
            engine=self._engine,
            photo_store=PhotoStore.open(settings.resolved_photo_store_url()),
            served=self._served,
            batcher=self._batcher,
            leases=self._leases,
            room=self._room,
            metrics=self._metrics,
            breaker=self._breaker,
            worker=worker,
            bulk_preparers=max(1, len(os.sched_getaffinity(0)) - 1),
        )
        self._stop_metrics = self._metrics.serve(settings.metrics_host, settings.metrics_port)
        self._batcher.start()
        self._leases.start()
        self._heartbeat.start()

    def stop(self) -> None:
        if self._tag is None:
            return
        log.info("stopping: finishing what is claimed", jobs=self._leases.held())
        self._room.close()
        if not self._room.wait_until_empty(DRAIN_S):
            log.warning("not everything could be finished; what remains is put back", after_s=DRAIN_S)
        self._batcher.close(drain=False, timeout=PUT_BACK_S)
        self._room.wait_until_empty(PUT_BACK_S)
        self._heartbeat.stop()
        self._leases.stop()
        self._stop_metrics()
        self._engine.dispose()
        self._lease_engine.dispose()
        log.info("stopped")

    def _model_served(self, runtime: Runtime) -> None:
        self._metrics.model_served(runtime)
        self._batcher.forget_witness()  # an item of the model before, which it would keep in memory

    def _send(self, job_ids: Sequence[str], lane: Lane) -> None:
        send(self._celery, job_ids, lane)

    def _give_up(self, reason: str) -> None:
        """End the process at once. Its successor, or the lapse of its leases, brings the jobs back."""
        log.critical("the worker ends itself to be restarted", reason=reason)
        os._exit(EXIT_DEVICE_FAILED)
