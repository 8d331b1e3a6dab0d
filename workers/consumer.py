"""Celery's consumer, made to survive a broker that goes away while messages are unacknowledged."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer


class SurvivingConsumer(Consumer):
    """Tells a lost connection nothing any more about the messages that came over it.

    celery and kombu 5.7.0 do, twice, and each time end the worker with an AttributeError: at once, when they put
    unacknowledged messages back over the connection that was just lost; and later, when a task that went on in
    its thread ends and its message is acknowledged on the channel that was closed meanwhile. Neither is needed:
    Redis keeps the messages in its own list of unacknowledged ones, and what became of the jobs is in their rows.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        if self.task_consumer is not None:
            channel = self.task_consumer.channel
            channel.do_restore = False
            channel.basic_ack = channel.basic_reject = _say_nothing
        super().on_connection_error_after_connected(exc)


def _say_nothing(*_: Any, **__: Any) -> None:
    """Instead of an acknowledgement that nobody would receive."""
