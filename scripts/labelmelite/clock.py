"""The server's clock: wall time that never jumps while the server runs.

Events are ordered by their number, never by time. Leases, sessions and the times in the log read this clock: wall time
at the start, moved on by the monotonic clock, so that setting the machine's clock ends no lease and no session.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Seconds since 1970 that never go back.

    Parameters
    ----------
    floor
        A time, seconds since 1970, that has been written already: a restart after the machine's clock was set back
        goes on from there.
    wall, monotonic
        Where the time comes from; tests give their own.
    """

    def __init__(
        self,
        floor: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._zero = max(wall(), floor) - monotonic()

    def now(self) -> float:
        """Return the present time in seconds since 1970."""
        return self._zero + self._monotonic()


def iso(seconds: float) -> str:
    """Return a time, seconds since 1970, as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
