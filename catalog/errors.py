"""Everything the catalog can refuse, and why.

    CatalogError
    ├── SettingsError             the environment asks for something that cannot be
    ├── NotMigrated               the schema cannot be brought to this version's; says what to do
    ├── BackupFailed              a dump or a restore went wrong; says what to do
    ├── NotFound                  no such row, or another tenant's
    ├── InvalidCursor             a page cursor that this catalog did not write
    ├── EmptyProduct              neither title nor photo: nothing to tag
    ├── QueueFull                 the lane has no more room for the tenant; says when to come back
    ├── NotCancellable            the job runs or has ended
    ├── InvalidMessage            a queue message of another version or shape
    ├── InvalidCheckpoint         a checkpoint folder without the files that describe it
    ├── IdempotencyError
    │   ├── IdempotencyMismatch   the key was used with another payload
    │   └── IdempotencyInProgress the first request with the key is still running
    ├── PhotoMissing              the photo store has no such photo, or not yet
    └── Unavailable               a fault of the world: try again later
        ├── DatabaseUnavailable
        │   ├── DatabaseBusy      it answers: somebody holds the row for too long, or it has too much to do
        │   └── SchemaOutdated    its tables are older than this version's
        ├── BrokerUnavailable
        └── StoreUnavailable

An embedded server that cannot run raises `embedded.foreground.EmbeddedError`, which stands apart: no record is there.
A lost lease is no error: `jobs.finish` leaves such a job out and its siblings answer False, as it is in other hands.
"""


class CatalogError(Exception):
    """Root of every error the catalog raises on purpose."""


class SettingsError(CatalogError):
    """The settings cannot be used; the message names the variable and what to do."""


class NotMigrated(CatalogError):
    """The schema cannot be brought to this version's."""


class BackupFailed(CatalogError):
    """The database could not be written to a file, or made of one."""


class NotFound(CatalogError):
    """No such thing for this tenant. Another tenant's id gives the same answer."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is no {what} {name!r}")
        self.what = what
        self.name = name


class InvalidCursor(CatalogError):
    """The cursor was not made by this catalog."""

    def __init__(self) -> None:
        super().__init__("the cursor is not one this service gave out; start again without a cursor")


class EmptyProduct(CatalogError):
    """A product needs a title or a photo."""

    def __init__(self) -> None:
        super().__init__("a product needs a title or a photo; give at least one of them")


class QueueFull(CatalogError):
    """The tenant has as many queued jobs in the lane as it has places free, or more: the rest is for others."""

    def __init__(self, lane: str, own: int, queued: int, limit: int, retry_after_s: float) -> None:
        super().__init__(
            f"you have {own} queued jobs in the {lane} lane, of whose {limit} places {max(0, limit - queued)} are "
            f"free, and may have no more than there are free; try again in {retry_after_s:.0f} s"
        )
        self.lane = lane
        self.own = own
        self.queued = queued
        self.limit = limit
        self.retry_after_s = retry_after_s


class NotCancellable(CatalogError):
    """Only a queued job can be cancelled."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"job {job_id} is {status}; only a queued job can be cancelled")
        self.job_id = job_id
        self.status = status


class InvalidMessage(CatalogError):
    """A queue message that this version does not read."""


class InvalidCheckpoint(CatalogError):
    """The folder does not describe a checkpoint."""


class IdempotencyError(CatalogError):
    """An idempotency key cannot be used for this request."""


class IdempotencyMismatch(IdempotencyError):
    """The key belongs to a request with another payload."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the idempotency key {key!r} was used before with another payload; use a new key for a new request"
        )
        self.key = key


class IdempotencyInProgress(IdempotencyError):
    """The first request with this key has not been answered yet."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"a request with the idempotency key {key!r} is still running; try again in a moment"
        )
        self.key = key


class PhotoMissing(CatalogError):
    """The photo store has no such photo."""

    def __init__(self, photo_id: str, part: str) -> None:
        super().__init__(f"the photo store has no {part} of photo {photo_id}")
        self.photo_id = photo_id


class Unavailable(CatalogError):
    """Something outside this process does not answer; nothing is wrong with the request."""


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer, or not in time."""


class DatabaseBusy(DatabaseUnavailable):
    """PostgreSQL gave a statement up after its time: it answers, and may do so at once to the next."""


class SchemaOutdated(DatabaseUnavailable):
    """The database lacks a table, a column or a migration that this version needs."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the database is not ready for this version ({what}); run python -m catalog migrate"
        )


class BrokerUnavailable(Unavailable):
    """Redis does not take the message. The job stays queued and the sweep sends it."""


class StoreUnavailable(Unavailable):
    """The photo store does not answer, is full, or refuses."""
