"""The queue: Celery's settings, the one message there is, and sending it.

A message is a hint that jobs are due: `{"v": 1, "job_ids": […]}` and nothing else. Losing one costs a delay, a
forged one can at most start a job that is due. Knows no task body and no database.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from ssl import CERT_REQUIRED
from typing import Any

from celery import Celery
from celery.schedules import schedule
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError
from kombu.pools import producers
from kombu.transport import TRANSPORT_ALIASES
from redis.backoff import NoBackoff
from redis.retry import Retry

from catalog.errors import BrokerUnavailable, InvalidMessage
from catalog.settings import Settings
from catalog.views import LANES, Lane

TASK = "tagsmith.tag_products"
SWEEP = "tagsmith.sweep"
# Of its own: with no worker there sweeps pile up, and the first person after that must not wait behind them.
SWEEPS = "sweep"
MESSAGE_VERSION = 1
# A person waits for an interactive job: it gets a message of its own. A message costs a worker about 1 ms, so bulk
# jobs share one.
MAX_IDS: dict[Lane, int] = {"interactive": 1, "bulk": 64}
MAX_MESSAGE_IDS = max(MAX_IDS.values())

# Instead of kombu's own, by the scheme of the broker's URL.
TRANSPORTS = {
    "redis": "catalog.redis_transport:Transport",
    "rediss": "catalog.redis_transport:Transport",
    "sentinel": "catalog.redis_transport:SentinelTransport",
}
# Longest time a request waits for a broker that does not answer: twice this, for connecting and for sending.
SEND_TIMEOUT_S = 1.0
# Messages stay with a dead worker's connection for this long. One whose jobs take longer, on a slow device, comes
# again while it runs, and then is one more hint that jobs are due: it costs a look at the database.
VISIBILITY_TIMEOUT_S = 120
# Sweeps that no worker has taken are dropped after this. A worker compares it with its own clock: it must be more
# than clocks are wrong by, and the commonest mistake is a time zone, 26 hours at most.
SWEEP_EXPIRES_S = 2 * 86_400.0


def make_celery(settings: Settings) -> Celery:
    """The Celery application with every setting the queue relies on; connects to nothing yet."""
    url = settings.resolved_broker_url()
    TRANSPORT_ALIASES.update(TRANSPORTS)
    celery = Celery("tagsmith", broker=url, set_as_current=False)
    celery.conf.update(
        # Of a URL that says nothing about certificates kombu takes whatever it is shown; what it does say comes first.
        broker_use_ssl={"ssl_cert_reqs": CERT_REQUIRED} if url.lower().startswith("rediss:") else False,
        broker_transport_options={
            "master_name": settings.broker_master,
            # Of several sentinels one may be away; by default it is tried for seconds, at each connection.
            "sentinel_kwargs": {
                "socket_timeout": SEND_TIMEOUT_S,
                "socket_connect_timeout": SEND_TIMEOUT_S,
                "retry": Retry(NoBackoff(), 0),
            },
            "visibility_timeout": max(VISIBILITY_TIMEOUT_S, 2 * settings.lease_s),
            # kombu looks for messages of dead workers every 2 s, and at each look, not at each tenth.
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            # Half-open connections: kombu's defaults wait on them for ever.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "retry_on_timeout": False,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up after 100 and the worker dies
        # As it would at the first write that Redis refuses: full, a replica now, or unable to write its file.
        broker_channel_error_retry=True,
        task_queues=[Queue(name) for name in (SWEEPS, *LANES)],
        task_default_queue="interactive",
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,  # answers live in the database
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,  # the task writes its own outcome into the row
        task_publish_retry=False,  # the sweep sends again
        worker_pool="threads",  # forked processes have no model
        worker_prefetch_multiplier=1,
        worker_concurrency=2 * settings.max_batch,  # two full batches in flight: one runs, one is made ready
        worker_cancel_long_running_tasks_on_connection_loss=False,  # threads cannot be stopped; claims are safe
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        beat_schedule={
            "sweep": {
                "task": SWEEP,
                "schedule": schedule(settings.sweep_interval_s, nowfun=steady_now),
                "options": {"queue": SWEEPS, "expires": SWEEP_EXPIRES_S},
            }
        },
        beat_scheduler="celery.beat.Scheduler",  # keeps nothing in a file: the one entry is fixed
        beat_max_loop_interval=settings.sweep_interval_s,
        enable_utc=True,
        timezone="UTC",
    )
    # Loads the transport's code now, which takes a second, instead of inside the first request. Connects nothing.
    _ = celery.connection_for_write().transport
    return celery


def steady_now() -> datetime:
    """A time that only ever goes on, for measuring intervals. By the machine's clock beat would send no sweep for
    an hour after that clock was set back by an hour.
    """
    return datetime.fromtimestamp(time.monotonic(), UTC)


def ping(celery: Celery) -> None:
    """Asks the broker for an answer; raises BrokerUnavailable after two seconds at most."""
    with _answering_connection(celery) as connection:
        channel: Any = connection.default_channel
        channel.client.ping()


def send(celery: Celery, job_ids: Sequence[str], lane: Lane) -> None:
    """Sends the jobs to their lane, in as many messages as it needs.

    Raises BrokerUnavailable after two seconds at most. The caller need do nothing about it: the jobs are queued in
    the database and the sweep sends them.
    """
    with (
        _answering_connection(celery) as connection,
        producers[connection].acquire(block=True, timeout=SEND_TIMEOUT_S) as producer,
    ):
        for start in range(0, len(job_ids), MAX_IDS[lane]):
            message = make_message(job_ids[start : start + MAX_IDS[lane]])
            celery.send_task(TASK, args=[message], queue=lane, producer=producer, retry=False)


def waiting(celery: Celery, lane: Lane) -> int:
    """How many messages of the lane no worker has taken yet; raises BrokerUnavailable after two seconds at most."""
    with _answering_connection(celery) as connection:
        return int(connection.default_channel.queue_declare(queue=lane).message_count)


def forget_sweeps(celery: Celery) -> None:
    """Takes away the sweeps that wait: one does for all. Raises BrokerUnavailable after two seconds at most."""
    with _answering_connection(celery) as connection:
        connection.default_channel.queue_purge(queue=SWEEPS)


def faults(connection: Connection) -> tuple[type[Exception], ...]:
    """What says that the broker is away, or is there and refuses: errors of kombu, the system and the transport."""
    return (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)


@contextmanager
def _answering_connection(celery: Celery) -> Iterator[Connection]:
    """A connection whose every wait is short; anything that goes wrong with it becomes BrokerUnavailable."""
    options = {
        "socket_timeout": SEND_TIMEOUT_S,
        "socket_connect_timeout": SEND_TIMEOUT_S,
        "max_retries": 0,  # kombu connects again and again for four seconds by itself
    }
    with celery.connection_for_write(transport_options=options) as connection:
        try:
            yield connection
        except faults(connection) as error:
            raise BrokerUnavailable(
                f"the broker does not answer ({type(error).__name__}: {error}); the sweep sends what is queued"
            ) from error


def make_message(job_ids: Sequence[str]) -> dict[str, Any]:
    """The message for these jobs."""
    return {"v": MESSAGE_VERSION, "job_ids": list(job_ids)}


def parse_message(message: Mapping[str, Any]) -> list[str]:
    """The job ids of a message. Raises InvalidMessage for any other version or shape."""
    if not isinstance(message, Mapping) or message.get("v") != MESSAGE_VERSION:
        found = message.get("v") if isinstance(message, Mapping) else type(message).__name__
        raise InvalidMessage(
            f"this worker reads messages of version {MESSAGE_VERSION}, not {found!r}; upgrade web and workers together"
        )
    job_ids = message.get("job_ids")
    if not isinstance(job_ids, list) or not all(isinstance(job_id, str) for job_id in job_ids):
        raise InvalidMessage("a message holds a list of job ids under job_ids")
    if not 1 <= len(job_ids) <= MAX_MESSAGE_IDS:
        raise InvalidMessage(f"a message holds 1 to {MAX_MESSAGE_IDS} job ids, not {len(job_ids)}")
    if set(message) != {"v", "job_ids"}:
        raise InvalidMessage(f"a message holds v and job_ids only, not {sorted(map(str, message))}")
    return job_ids
