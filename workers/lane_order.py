"""Which lanes the consumer asks the broker for next: interactive before bulk, and bulk only while it is wanted.

Every message that is taken holds one of the process's few threads until its jobs have ended. An import has messages
without end, so without this they would hold all threads, and a person's message would wait in the queue until one of
them is done.
"""

from __future__ import annotations

from collections.abc import Callable

from kombu.utils.scheduling import priority_cycle

from catalog.queue import MAX_IDS
from catalog.settings import Settings
from workers.room import Room

# Jobs that wait for room, so that the next are at hand when there is some: more than a fast device works off while the
# broker is asked for interactive messages alone, which takes POLL_S at most.
AHEAD = 8 * MAX_IDS["bulk"]
POLL_S = 0.25


class LaneOrder(priority_cycle):
    """For kombu's `queue_order_strategy`."""

    def __init__(self, wants_bulk: Callable[[], bool]) -> None:
        super().__init__()
        self._wants_bulk = wants_bulk

    def consume(self, n: int) -> list[str]:
        lanes: list[str] = super().consume(n)
        return lanes if self._wants_bulk() else [lane for lane in lanes if lane != "bulk"]


def wants_bulk(room: Room, settings: Settings) -> bool:
    """Whether another bulk message is of use. However few jobs each has, they hold three quarters of the threads at
    most (there are two for each product of a batch, see `catalog.queue`).
    """
    messages, jobs = room.on_hand("bulk")
    return messages < max(1, settings.max_batch * 3 // 2) and jobs < settings.max_ready + AHEAD
