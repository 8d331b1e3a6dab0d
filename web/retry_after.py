"""When to ask for a job again."""

from __future__ import annotations

import math

from catalog.places import Place

# An interactive job on an idle worker has ended by then; asking earlier than that is what `wait` is for.
SOONEST_S = 1
# The estimate is made of the rate of the last minutes, and workers may be added meanwhile.
LATEST_S = 60


def retry_after(place: Place | None) -> str:
    """The header's value; `place` is None unless the job is queued."""
    eta_s = place.eta_s if place else None
    return str(min(max(SOONEST_S, math.ceil(eta_s or 0)), LATEST_S))
