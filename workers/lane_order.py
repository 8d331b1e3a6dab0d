"""Which queues the consumer asks the broker for next: interactive before bulk, bulk only while it is wanted, and none
while the process can take nothing.

Every message that is taken holds one of the process's few threads until its jobs have ended. An import has messages
without end, so without this they would hold all threads, and a person's message would wait in the queue until one of
them is done.
"""

from __future__ import annotations

from collections.abc import Callable

from kombu.utils.scheduling import round_robin_cycle

from catalog.queue import MAX_IDS, SWEEPS
from catalog.settings import Settings
from catalog.views import LANES
from workers.room import Room

# Jobs that wait for room, so that the next are at hand when there is some: more than a fast device works off while the
# broker is asked for interactive messages alone, which takes POLL_S at most.
AHEAD = 8 * MAX_IDS["bulk"]
POLL_S = 0.25
# Every so many times bulk is asked for first: interactive messages without end would keep an import in the queue for
# good. What is on hand of it comes to the device as `workers.ready_queue` has it, behind what is urgent.
BULK_FIRST_EVERY = 8
ORDER = (SWEEPS, *LANES)


class LaneOrder(round_robin_cycle):
    """For kombu's `queue_order_strategy`."""

    def __init__(self, wants_any: Callable[[], bool], wants_bulk: Callable[[], bool]) -> None:
        super().__init__()
        self._wants_any = wants_any
        self._wants_bulk = wants_bulk
        self._asked = 0

    def consume(self, n: int) -> list[str]:
        queues: list[str] = super().consume(n)
        # Of Celery's own, in which workers answer each other and `celery status`.
        replies = [queue for queue in queues if queue not in ORDER]
        return [*replies, *self._lanes([queue for queue in ORDER if queue in queues])]

    def _lanes(self, queues: list[str]) -> list[str]:
        if not self._wants_any():
            return []
        if "bulk" not in queues:
            return queues
        queues.remove("bulk")
        if not self._wants_bulk():
            return queues
        self._asked += 1
        return ["bulk", *queues] if self._asked % BULK_FIRST_EVERY == 0 else [*queues, "bulk"]


def wants_bulk(room: Room, settings: Settings) -> bool:
    """Whether another bulk message is of use. However few jobs each has, they hold three quarters of the threads at
    most (there are two for each product of a batch, see `catalog.queue`).
    """
    messages, jobs = room.on_hand("bulk")
    return messages < settings.max_batch * 3 // 2 and jobs < settings.max_ready + AHEAD
