"""Celery's consumer, made to survive a broker that goes away while messages are unacknowledged, and messages that are
none of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer

log = structlog.get_logger(__name__)


class SurvivingConsumer(Consumer):
    """Says nothing to a lost connection about the messages that came over it.

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

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Refuses what Celery fails to take apart, whose error would end the worker and leave it in the queue."""
        handle = super().create_task_handler(*arguments, **options)

        def handle_or_refuse(message: Any) -> None:
            try:
                handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:
                log.warning("message refused: it is of another shape", error=type(error).__name__)
                message.reject_log_error(log, (*self.connection_errors, *self.channel_errors))

        return handle_or_refuse


def _say_nothing(*_: Any, **__: Any) -> None:
    """Instead of an acknowledgement that nobody would receive."""
