"""kombu's transports over Redis, which drop what they cannot read and go on.

A message is a hint that jobs are due, and losing one costs a delay. kombu 5.7 lets the error of one that it cannot read
through to the loop of the worker, which ends; of what it finds among the unacknowledged ones it does so at every start.
So whoever else writes to this Redis, another program or another version, could keep every worker from working.
"""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import redis, virtual

log = structlog.get_logger(__name__)

# What comes of taking apart something of another shape; that the broker is away is none of these.
OF_ANOTHER_SHAPE = (ValueError, TypeError, LookupError, AttributeError)


class Unreadable(ValueError):
    """It is no message of kombu's."""


class Message(virtual.Message):
    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        """Raises Unreadable."""
        try:
            super().__init__(payload, channel, **options)
            route = self.delivery_info["exchange"], self.delivery_info["routing_key"]
            if not all(isinstance(part, str) for part in (self.delivery_tag, *route)):
                raise Unreadable
        except OF_ANOTHER_SHAPE as error:
            raise Unreadable(f"a message of another shape: {type(error).__name__}") from error


class QoS(redis.QoS):
    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except OF_ANOTHER_SHAPE as error:
            log.warning("an unacknowledged message is dropped: it cannot be read", error=type(error).__name__)
            self._remove_from_indices(tag).execute()


class _DropsTheUnreadable:
    QoS = QoS
    Message = Message

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ValueError as error:  # of no JSON, or Unreadable; it is off the queue already
            log.warning("a message is dropped: it cannot be read", error=type(error).__name__)
            return True


class Channel(_DropsTheUnreadable, redis.Channel):
    pass


class SentinelChannel(_DropsTheUnreadable, redis.SentinelChannel):
    pass


class Transport(redis.Transport):
    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    Channel = SentinelChannel
