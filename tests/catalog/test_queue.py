import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine

from benchmarks.backing import answers, wait_until
from benchmarks.installation import free_port
from catalog import queue
from catalog.embedded.redis import server_program
from catalog.errors import BrokerUnavailable, InvalidMessage
from catalog.settings import Settings


@pytest.fixture
def celery(redis_url: str, settings: Settings) -> Celery:
    return queue.make_celery(settings)


@pytest.fixture
def broker(servers: Any) -> Iterator[redis.Redis]:
    with closing(servers.redis()) as client:
        yield client


def with_broker(settings: Settings, url: str) -> Celery:
    return queue.make_celery(settings.model_validate({**settings.model_dump(), "broker_url": url}))


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[int]:
    """The port of a sentinel that watches a Redis of its own under the name `shop`."""
    program, of_redis, of_sentinel = str(server_program()), free_port(), free_port()
    (tmp_path / "sentinel.conf").write_text(
        f"port {of_sentinel}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {of_redis} 1\n"
    )
    commands = (
        [program, "--port", str(of_redis), "--bind", "127.0.0.1", "--save", ""],
        [program, "sentinel.conf", "--sentinel"],
    )
    processes = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for command in commands]
    try:
        for port in (of_redis, of_sentinel):
            with closing(redis.Redis(port=port)) as client:
                wait_until(partial(answers, client.ping, redis.ConnectionError), "Redis")
        yield of_sentinel
    finally:
        for process in processes:
            process.kill()
            process.wait()


def messages(broker: redis.Redis, lane: str) -> list[Any]:
    import base64

    raw: Any = broker.lrange(lane, 0, -1)
    return [json.loads(base64.b64decode(json.loads(one)["body"]))[0] for one in raw]


def test_an_interactive_job_gets_a_message_of_its_own(celery: Celery, broker: redis.Redis) -> None:
    queue.send(celery, ["job_1", "job_2"], "interactive")
    assert sorted(map(str, messages(broker, "interactive"))) == [
        "[{'v': 1, 'job_ids': ['job_1']}]",
        "[{'v': 1, 'job_ids': ['job_2']}]",
    ]
    assert broker.exists("bulk") == 0


def test_bulk_jobs_share_messages_of_at_most_64(celery: Celery, broker: redis.Redis) -> None:
    ids = [f"job_{number}" for number in range(130)]
    queue.send(celery, ids, "bulk")
    sent = [message[0]["job_ids"] for message in messages(broker, "bulk")]
    assert sorted(map(len, sent)) == [2, 64, 64]
    assert sorted(job_id for message in sent for job_id in message) == sorted(ids)


def test_what_waits_in_a_lane_is_counted_in_messages(celery: Celery) -> None:
    assert queue.waiting(celery, "bulk") == 0
    queue.send(celery, [f"job_{number}" for number in range(130)], "bulk")
    assert queue.waiting(celery, "bulk") == 3
    assert queue.waiting(celery, "interactive") == 0


def test_what_is_sent_can_be_parsed(celery: Celery, broker: redis.Redis) -> None:
    queue.send(celery, ["job_1"], "bulk")
    [arguments] = messages(broker, "bulk")
    assert queue.parse_message(arguments[0]) == ["job_1"]


def test_the_message_is_json_and_names_the_task(celery: Celery, broker: redis.Redis) -> None:
    queue.send(celery, ["job_1"], "bulk")
    envelope = json.loads(broker.lindex("bulk", 0))  # type: ignore[arg-type]
    assert (envelope["content-type"], envelope["headers"]["task"]) == ("application/json", queue.TASK)


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"job_ids": ["job_1"]},
        {"v": 2, "job_ids": ["job_1"]},
        {"v": 1},
        {"v": 1, "job_ids": "job_1"},
        {"v": 1, "job_ids": []},
        {"v": 1, "job_ids": [1]},
        {"v": 1, "job_ids": ["job_1"] * 65},
        {"v": 1, "job_ids": ["job_1"], "callback": "x"},
    ],
)
def test_any_other_message_is_refused(message: Any) -> None:
    with pytest.raises(InvalidMessage):
        queue.parse_message(message)


def test_a_broker_that_refuses_connections_is_reported(settings: Settings) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{free.getsockname()[1]}/0"
    celery = with_broker(settings, url)
    for ask in (lambda: queue.send(celery, ["job_1"], "bulk"), lambda: queue.ping(celery)):
        with pytest.raises(BrokerUnavailable, match="refused"):
            ask()


def test_a_broker_that_never_answers_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "SEND_TIMEOUT_S", 0.1)
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        celery = with_broker(settings, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with pytest.raises(BrokerUnavailable, match="Timeout"):
            queue.send(celery, ["job_1"], "bulk")


def test_a_password_of_the_broker_appears_in_no_error(settings: Settings) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{free.getsockname()[1]}/0"
    with pytest.raises(BrokerUnavailable) as error:
        queue.send(with_broker(settings, url), ["job_1"], "bulk")
    assert "s3cret" not in str(error.value)


def test_a_full_broker_refuses_and_the_job_stays_queued(
    celery: Celery, broker: redis.Redis, shop: Any, engine: Engine
) -> None:
    _, job = shop.accept()
    broker.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            queue.send(celery, [job.id], "interactive")
    finally:
        broker.config_set("maxmemory", "512mb")
    assert shop.job(job.id).status == "queued"


def test_sending_works_again_once_the_broker_is_back(
    settings: Settings, tmp_path: Path, embedded_servers: Callable[[Path], Any]
) -> None:
    """With the connection that broke still in the pool; and the message sent before the kill is still there."""
    own = embedded_servers(tmp_path)
    own.start("redis")
    own.wait_until_ready("redis")
    celery = queue.make_celery(settings.model_copy(update={"var": tmp_path}))
    queue.send(celery, ["job_1"], "bulk")
    with closing(own.redis()) as client:
        # Redis puts off a write to its file while an earlier one is being synced to a busy disk.
        while client.info("persistence")["aof_buffer_length"]:
            time.sleep(0.01)
    own.processes["redis"].kill()
    own.processes.pop("redis").wait()
    with pytest.raises(BrokerUnavailable):
        queue.send(celery, ["job_2"], "bulk")
    own.start("redis")
    own.wait_until_ready("redis")
    queue.send(celery, ["job_3"], "bulk")
    with closing(own.redis()) as client:
        assert [message[0]["job_ids"] for message in messages(client, "bulk")] == [["job_3"], ["job_1"]]
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_settings_that_hold_the_queue_together(celery: Celery, settings: Settings) -> None:
    conf = celery.conf
    assert (conf.task_acks_late, conf.task_ignore_result, conf.accept_content) == (True, True, ["json"])
    assert (conf.worker_prefetch_multiplier, conf.worker_concurrency) == (1, 2 * settings.max_batch)
    assert conf.broker_connection_max_retries is None
    assert conf.broker_channel_error_retry is True
    options = conf.broker_transport_options
    assert options["visibility_timeout"] >= 2 * settings.lease_s
    assert (options["socket_timeout"], options["health_check_interval"]) == (10, 5)
    assert (options["unacked_restore_interval"], options["unacked_restore_throttle"]) == (2, 1)
    assert [one.name for one in conf.task_queues] == ["sweep", "interactive", "bulk"]


def test_sweeps_that_wait_are_taken_away_and_nothing_else(celery: Celery, broker: redis.Redis) -> None:
    for _ in range(3):
        celery.send_task(queue.SWEEP, queue=queue.SWEEPS)
    queue.send(celery, ["job_1"], "interactive")
    queue.forget_sweeps(celery)
    assert (broker.llen(queue.SWEEPS), broker.llen("interactive")) == (0, 1)


def test_sentinels_are_asked_for_the_redis_of_the_name_that_is_set(settings: Settings, sentinel: int) -> None:
    url = f"sentinel://127.0.0.1:1;sentinel://127.0.0.1:{sentinel}"  # the first is away
    celery = with_broker(settings.model_copy(update={"broker_master": "shop"}), url)
    queue.send(celery, ["job_1", "job_2"], "interactive")
    assert queue.waiting(celery, "interactive") == 2
    with pytest.raises(BrokerUnavailable, match="No master found for 'mymaster'"):
        queue.send(with_broker(settings, url), ["job_1"], "interactive")


@pytest.mark.parametrize(
    ("url", "checks"),
    [
        ("rediss://broker:6380/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("REDISS://broker:6380/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        (
            "rediss://broker:6380/0?ssl_ca_certs=/shop.crt",
            {"ssl_ca_certs": "/shop.crt"},
        ),  # redis-py's default: all
        ("rediss://broker:6380/0?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("redis://broker:6379/0", False),
    ],
)
def test_an_encrypted_broker_must_show_a_good_certificate_unless_the_url_says_otherwise(
    settings: Settings, url: str, checks: Any
) -> None:
    assert with_broker(settings, url).connection_for_write().ssl == checks
