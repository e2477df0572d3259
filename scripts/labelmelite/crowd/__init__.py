"""How people who are no colleagues come in: study links, MTurk, file bundles; and how they are paid."""

import hashlib
import hmac
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from labelmelite.errors import ApiError
from labelmelite.security import Person, Visitor
from labelmelite.settings import MTURK_HOSTS, Settings

PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"
"""What MTurk gives instead of an assignment to a worker who only looks."""

_LONGEST = 200


def visitor(settings: Settings, kind: str, given: dict[str, Any]) -> Visitor:
    """Return whom a platform sends, from the parameters of the address that it opened.

    Parameters
    ----------
    kind
        `study` or `mturk`.

    Raises
    ------
    ApiError
        If a parameter is missing, or MTurk's form would go elsewhere than to MTurk.
    """
    if kind == "study":
        names = settings.study
        kept = {"study": _text(given, names.study, ""), "submission": _text(given, names.submission, "")}
        return Visitor(_text(given, names.participant), kept)
    assignment = _text(given, "assignmentId")
    if assignment == PREVIEW:
        return Visitor(PREVIEW, {"preview": True})
    target = _text(given, "turkSubmitTo").rstrip("/")
    if target not in (*MTURK_HOSTS, *settings.submit_hosts):
        raise ApiError("forbidden", f"{target[:100]} is no address of MTurk.")
    kept = {"submission": assignment, "study": _text(given, "hitId"), "submit_to": f"{target}/mturk/externalSubmit"}
    return Visitor(_text(given, "workerId"), kept)


def completion(settings: Settings, person: Person, submitted: int = 1) -> str | None:
    """Return where the platform wants to see somebody who has submitted so many tasks in this submission.

    None: nowhere yet. For MTurk this is where the page posts its final form.
    """
    kind = person.crowd.get("adapter")
    if kind == "mturk":
        return str(person.crowd["submit_to"]) if submitted > 0 and not person.preview else None
    address = settings.study.completion
    if kind != "study" or address is None or submitted < settings.study.tasks:
        return None
    parts = urlsplit(address)
    query = parse_qsl(parts.query, keep_blank_values=True)
    submission = person.crowd.get("submission")
    filled = [(name, submission if value == "{submission}" else value) for name, value in query]
    return urlunsplit(parts._replace(query=urlencode(filled)))


def submission_of(salt: str, submission: Any) -> str:
    """Return what the log says of a platform's id of a submission: a salted hash; "" where there is none."""
    if not isinstance(submission, str) or not submission:
        return ""
    return hmac.new(salt.encode(), f"submission\x1f{submission}".encode(), hashlib.sha256).hexdigest()[:32]


def form(person: Person) -> dict[str, str]:
    """Return the fields of the form that a page posts to MTurk in the end; none for others."""
    if person.crowd.get("adapter") != "mturk" or person.preview:
        return {}
    return {"assignmentId": str(person.crowd["submission"]), "annotator": person.id}


def _text(given: dict[str, Any], name: str, default: str | None = None) -> str:
    found = given.get(name, default)
    if (
        not isinstance(found, str)
        or len(found) > _LONGEST
        or not found.isprintable()
        or (not found and default is None)
    ):
        raise ApiError("bad_request", f"The platform did not say {name}. Open the page from the platform.")
    return found
