"""When a client is told to ask for its job again."""

import pytest

from catalog.places import Place
from web.retry_after import retry_after


@pytest.mark.parametrize(
    ("place", "seconds"),
    [
        (None, "1"),
        (Place(0, None), "1"),
        (Place(1, 0.2), "1"),
        (Place(40, 7.3), "8"),
        (Place(10_000, 13_102.0), "60"),
    ],
)
def test_it_is_about_when_the_job_will_have_ended(place: Place | None, seconds: str) -> None:
    assert retry_after(place) == seconds
