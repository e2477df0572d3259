"""The errors that a page shows to a person."""

from typing import Any, Final

from segloop.errors import SegloopError

STATUS: Final = {
    "sign_in": 401,
    "forbidden": 403,
    "not_found": 404,
    "bad_request": 400,
    "bad_mask": 422,
    "conflict": 409,
    "stale": 409,
    "too_large": 413,
    "gone": 410,
    "storage": 507,
    "unavailable": 503,
}
"""HTTP status by error code; the codes are those of docs/labelmelite-api.md."""


class ApiError(SegloopError):
    """A request that is refused.

    Parameters
    ----------
    code
        One of `STATUS`.
    message
        A sentence for the person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS[code]

    def to_json(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {"error": {"code": self.code, "message": self.message}}
