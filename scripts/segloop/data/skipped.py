"""Records that could not be used, or not as they were: each is named, and too many skipped ones stop the job."""

import logging
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from segloop.errors import SegloopError
from segloop.files import write_json

logger = logging.getLogger("segloop")


class SkipReport:
    """Counts records and names the skipped ones in a `skipped.json`.

    Parameters
    ----------
    path
        Where the report is written; None: nowhere, the caller reads `skipped` and `notes`.
    max_share
        The job stops when more than this share of the records was skipped.

    Attributes
    ----------
    used
        Number of good records.
    skipped
        What was not used: `file`, `record` and `reason` of each.
    """

    def __init__(self, path: Path | None, max_share: float) -> None:
        self.path = path
        self.max_share = max_share
        self.used = 0
        self.skipped: list[dict[str, str]] = []
        self._notes: list[dict[str, str]] = []
        self._tallies: Counter[tuple[str, str]] = Counter()

    def use(self, records: int = 1) -> None:
        """Count good records."""
        self.used += records

    def skip(self, file: str | Path, record: str | int, reason: str) -> None:
        """Name a record that is not used, and why."""
        one = {"file": _printable(file), "record": _printable(record), "reason": _printable(reason)}
        self.skipped.append(one)
        logger.warning("skipped: %s, %s: %s", *one.values())

    def note(self, file: str | Path, record: str | int, reason: str) -> None:
        """Name a record that is used, but not as it stands; or how many were left out, and on whose word."""
        one = {"file": _printable(file), "record": _printable(record), "reason": _printable(reason)}
        self._notes.append(one)
        logger.info("note: %s, %s: %s", *one.values())

    def tally(self, file: str | Path, reason: str) -> None:
        """Count one more record of which the same is to be noted, in one note for all."""
        self._tallies[_printable(file), _printable(reason)] += 1

    @property
    def notes(self) -> list[dict[str, str]]:
        """What was changed, or left out on request, so far."""
        counted = [
            {"file": file, "record": f"{count} records", "reason": reason}
            for (file, reason), count in self._tallies.items()
        ]
        return self._notes + counted

    def finish(self) -> None:
        """Write the report.

        Raises
        ------
        SegloopError
            If more than `max_share` of the records were skipped.
        """
        record = {"schema_version": 1, "used": self.used, "skipped": self.skipped, "notes": self.notes}
        if self.path is not None:
            write_json(self.path, record)
        for (file, reason), count in self._tallies.items():
            logger.info("note: %s: %d records: %s", file, count, reason)
        total = self.used + len(self.skipped)
        # The tolerance is for products such as 0.29 * 100, which is a little less than 29.
        if len(self.skipped) > self.max_share * total + 1e-6:
            first = "; ".join(f"{one['file']}, {one['record']}: {one['reason']}" for one in self.skipped[:3])
            raise SegloopError(
                f"{len(self.skipped)} of {total} records could not be used, more than max_skipped = {self.max_share}: "
                f"{first}{' ...' if len(self.skipped) > 3 else ''}. Mend the data, or raise max_skipped. "
                f"All are listed in {self.path or 'the report'} and in this log."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()


def _printable(value: str | Path | int) -> str:
    # A file name that is not UTF-8 must not keep the report from being written.
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
