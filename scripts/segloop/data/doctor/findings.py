"""What an examination found, and what it means for the set as a whole."""

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final


class Status(IntEnum):
    """The exit status of `segloop doctor`; 1 and 2 are those of a command that failed or was typed wrongly."""

    USABLE = 0
    """Every record can be used."""
    USABLE_IN_PART = 3
    """Some records cannot be used, and are skipped by the readers; the rest can."""
    UNUSABLE = 4
    """The set cannot be read, or nothing of it can be used."""


STATUS_WORDS: Final = {
    Status.USABLE: "usable",
    Status.USABLE_IN_PART: "usable without its bad records",
    Status.UNUSABLE: "not usable",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one record."""

    file: str
    record: str
    """What the record is called: `annotation 7`, `images[3]`, a file name."""
    reason: str
    repair: str = ""
    """What the repaired copy does about it; empty where it leaves the record as it is."""

    @property
    def kind(self) -> str:
        """The reason without what differs from record to record: numbers, names, paths."""
        text = re.sub(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|\[[^\]]*\]", "...", self.reason)
        text = re.sub(r"(?:\S*/\S+\s+)+", "... ", text)
        return re.sub(r"-?\b\d[\d.,e+-]*\b|\bnan\b|-?\binf\b", "N", text)


@dataclass
class Examination:
    """All that was found in one data set."""

    path: Path
    form: str = "unknown"
    fatal: str | None = None
    """Why the set as a whole cannot be read."""
    images: int = 0
    annotations: int = 0
    """Records of the set, good and bad."""
    usable_images: int = 0
    usable_annotations: int = 0
    bad: list[Finding] = field(default_factory=list)
    """Records that the readers skip."""
    odd: list[Finding] = field(default_factory=list)
    """What the readers cope with and other programs may stumble over."""
    unchecked: list[str] = field(default_factory=list)
    """What was not looked at, and why."""

    @property
    def status(self) -> Status:
        """Whether the set is usable."""
        nothing_left = self.usable_annotations < min(1, self.annotations) or self.usable_images < min(1, self.images)
        if self.fatal is not None or nothing_left:
            return Status.UNUSABLE
        return Status.USABLE_IN_PART if self.bad else Status.USABLE

    def record(self) -> dict[str, Any]:
        """Return all of it for a JSON file."""
        return {
            "schema_version": 1,
            "path": str(self.path),
            "format": self.form,
            "status": int(self.status),
            "verdict": STATUS_WORDS[self.status],
            "fatal": self.fatal,
            "images": {"all": self.images, "usable": self.usable_images},
            "annotations": {"all": self.annotations, "usable": self.usable_annotations},
            "counts": {"bad": _counts(self.bad), "odd": _counts(self.odd)},
            "bad": [_line(one) for one in self.bad],
            "odd": [_line(one) for one in self.odd],
            "unchecked": self.unchecked,
        }

    def text(self, most: int | None) -> str:
        """Return all of it in words; of each reason at most that many records are listed, None: all."""
        lines = [f"{self.path}: {self.form}, {self.images:,} images, {self.annotations:,} annotations"]
        lines += [f"cannot be read: {self.fatal}"] if self.fatal else []
        for title, found in (("bad", self.bad), ("odd, but used", self.odd)):
            if found:
                lines.append(f"{title}: {len(found):,}")
                lines += [f"  {count:>9,} x {kind}" for kind, count in Counter(one.kind for one in found).most_common()]
        lines += [f"not checked: {what}" for what in self.unchecked]
        for title, found in (("bad", self.bad), ("odd", self.odd)):
            lines += _listed(title, found, str(self.path), most)
        left = f"{self.usable_images:,} images and {self.usable_annotations:,} annotations can be used"
        lines.append(f"{STATUS_WORDS[self.status]}: {left}")
        return "\n".join(lines) + "\n"


def _counts(found: list[Finding]) -> dict[str, int]:
    return dict(Counter(one.kind for one in found).most_common())


def _line(one: Finding) -> dict[str, str]:
    return {"file": one.file, "record": one.record, "reason": one.reason, "repair": one.repair}


def _listed(title: str, found: list[Finding], own: str, most: int | None) -> list[str]:
    lines = []
    shown: Counter[str] = Counter()
    for one in found:
        shown[one.kind] += 1
        if most is None or shown[one.kind] <= most:
            repair = f" (repaired copy: {one.repair})" if one.repair else ""
            where = one.record if one.file == own else f"{one.file}, {one.record}"
            lines.append(f"{title}: {where}: {one.reason}{repair}")
    hidden = sum(max(0, count - most) for count in shown.values()) if most is not None else 0
    return [*lines, f"{title}: {hidden:,} more of the same kinds; --all lists them"] if hidden else lines
