"""Amazon Mechanical Turk for those who have a requester's account: post tasks, see what was done, approve it.

The pages are an external question (https://docs.aws.amazon.com/AWSMechTurk/latest/AWSMturkAPI/, ExternalQuestion):
MTurk shows `/mturk?token=...` in a frame and adds assignmentId, hitId, workerId and turkSubmitTo. The sandbox is the
default, where nothing is paid. Credentials are found by boto3 itself; the labelling server never sees them.

Assignments are approved when the server has accepted a task that was submitted in them. Nothing is ever rejected by
itself: a rejection harms a worker, so that it is left to a person.
"""

import sqlite3
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from labelmelite.crowd import pay, submission_of
from labelmelite.store import FILE, setting
from segloop.errors import SegloopError

SANDBOX: Final = "https://mturk-requester-sandbox.us-east-1.amazonaws.com"
LIVE: Final = "https://mturk-requester.us-east-1.amazonaws.com"

_SCHEMA: Final = "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd"
_LOCALE: Final = "00000000000000000071"
_APPROVED: Final = "000000000000000000L0"


@dataclass(frozen=True)
class Offer:
    """What workers are offered.

    Attributes
    ----------
    reward
        US dollars for one task.
    minutes
        To finish a task in.
    days
        For which the offer stands, and after which a submitted task is approved by MTurk itself.
    countries
        Where workers may be; everywhere when empty.
    approval
        Least share of a worker's earlier tasks that were approved, in percent.
    """

    title: str = "Judge outlines of objects in photographs"
    description: str = "Look at about 30 outlines and say of each whether it covers the object."
    keywords: str = "image, annotation, segmentation"
    reward: float = 0.5
    minutes: int = 30
    days: int = 3
    countries: tuple[str, ...] = ()
    approval: int = 95
    frame_height: int = 900


def price(seconds: float, wage: float) -> float:
    """Return the reward, in whole cents, that pays a wage an hour for a task of so many seconds."""
    return max(0.01, round(seconds * wage / 3600, 2))


def client(endpoint: str = SANDBOX) -> Any:
    """Return a client of MTurk.

    Raises
    ------
    SegloopError
        If boto3 is not installed.
    """
    try:
        import boto3
    except ModuleNotFoundError:
        raise SegloopError("MTurk needs boto3. Install it with: pip install 'segloop[mturk]'") from None
    return boto3.client("mturk", region_name="us-east-1", endpoint_url=endpoint)


class Requester:
    """One project's tasks on MTurk, found again by a note that workers do not see.

    Parameters
    ----------
    mturk
        What `client` returns.
    project
        Name of the project, of at most 200 characters.
    """

    def __init__(self, mturk: Any, project: str) -> None:
        self._mturk = mturk
        self._note = f"labelmelite {project}"[:255]

    def post(self, link: str, offer: Offer, count: int) -> list[str]:
        """Offer so many tasks and return their ids.

        Parameters
        ----------
        link
            An invite of the kind `mturk`; MTurk takes https alone.
        """
        if not link.startswith("https://"):
            raise SegloopError("MTurk shows pages over https alone. Start the server with --public https://...")
        question = (
            f'<ExternalQuestion xmlns="{_SCHEMA}"><ExternalURL>{escape(link)}</ExternalURL>'
            f"<FrameHeight>{offer.frame_height}</FrameHeight></ExternalQuestion>"
        )
        kind = self._call(
            "create_hit_type",
            AutoApprovalDelayInSeconds=offer.days * 86_400,
            AssignmentDurationInSeconds=offer.minutes * 60,
            Reward=f"{offer.reward:.2f}",
            Title=offer.title,
            Keywords=offer.keywords,
            Description=offer.description,
            QualificationRequirements=_requirements(offer),
        )["HITTypeId"]
        return [
            self._call(
                "create_hit_with_hit_type",
                HITTypeId=kind,
                MaxAssignments=1,
                LifetimeInSeconds=offer.days * 86_400,
                Question=question,
                RequesterAnnotation=self._note,
            )["HIT"]["HITId"]
            for _ in range(count)
        ]

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Yield the project's tasks."""
        for page in self._pages("list_hits"):
            yield from (one for one in page["HITs"] if one.get("RequesterAnnotation") == self._note)

    def submitted(self) -> list[dict[str, Any]]:
        """Return assignments that wait for approval, the earliest first."""
        found = []
        for task in self.tasks():
            for page in self._pages("list_assignments_for_hit", HITId=task["HITId"], AssignmentStatuses=["Submitted"]):
                found += page["Assignments"]
        return sorted(found, key=lambda one: (one["SubmitTime"], one["AssignmentId"]))

    def approve(self, accepted: Container[tuple[str, str]]) -> tuple[list[str], list[str]]:
        """Approve what was done; return the assignments that were approved, and those left for a person.

        Parameters
        ----------
        accepted
            Workers and their assignments in which the server has accepted a task.
        """
        approved, doubtful = [], []
        for one in self.submitted():
            if (one["WorkerId"], one["AssignmentId"]) in accepted:
                self._call("approve_assignment", AssignmentId=one["AssignmentId"])
                approved.append(one["AssignmentId"])
            else:
                doubtful.append(one["AssignmentId"])
        return approved, doubtful

    def end(self) -> int:
        """Withdraw what nobody has taken yet; return how many tasks there are."""
        count = 0
        for count, task in enumerate(self.tasks(), start=1):  # noqa: B007
            self._call("update_expiration_for_hit", HITId=task["HITId"], ExpireAt=datetime(1970, 1, 2, tzinfo=UTC))
        return count

    def _call(self, name: str, **values: Any) -> Any:
        try:
            return getattr(self._mturk, name)(**values)
        except Exception as error:
            raise _told(error) from None

    def _pages(self, name: str, **values: Any) -> Iterator[Any]:
        try:
            yield from self._mturk.get_paginator(name).paginate(**values)
        except Exception as error:
            raise _told(error) from None


def accepted_assignments(folder: Path) -> set[tuple[str, str]]:
    """Return workers and their assignments in which the server has accepted a task, by its database and its pay list.

    Raises
    ------
    SegloopError
        If there is no database.
    """
    if not (folder / FILE).exists():
        raise SegloopError(f"{folder} holds no database of LabelMeLite. Name the folder with --data.")
    connection = sqlite3.connect(f"{(folder / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=20)
    connection.row_factory = sqlite3.Row
    try:
        salt: str = setting(connection, "salt", "")
        rows = connection.execute(
            "SELECT DISTINCT annotator, json_extract(payload, '$.submission') AS submission FROM event"
            " WHERE kind = 'bundle_submit' OR (kind = 'close' AND json_extract(payload, '$.how') = 'submitted')"
        ).fetchall()
    except sqlite3.Error as error:
        raise SegloopError(f"{folder / FILE} cannot be read now ({error}).") from None
    finally:
        connection.close()
    accepted = {(row["annotator"], row["submission"]) for row in rows}
    return {
        (visit["worker"], visit["submission"])
        for annotator, visits in pay.read(folder).items()
        for visit in visits
        if visit.get("adapter") == "mturk" and (annotator, submission_of(salt, visit["submission"])) in accepted
    }


def _requirements(offer: Offer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if offer.approval > 0:
        found.append(
            {
                "QualificationTypeId": _APPROVED,
                "Comparator": "GreaterThanOrEqualTo",
                "IntegerValues": [offer.approval],
                "ActionsGuarded": "Accept",
            }
        )
    if offer.countries:
        found.append(
            {
                "QualificationTypeId": _LOCALE,
                "Comparator": "In",
                "LocaleValues": [{"Country": country} for country in offer.countries],
                "ActionsGuarded": "Accept",
            }
        )
    return found


def _told(error: Exception) -> SegloopError:
    # botocore makes its classes of errors as it goes; all say in words what was wrong.
    return SegloopError(f"MTurk did not do it: {error}")
