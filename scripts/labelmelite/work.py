"""What gives people tasks and takes their answers: an iteration of the loop, or a bundle of questions."""

from typing import Any, Protocol

from labelmelite.images import Pixels
from labelmelite.settings import Question


class Work(Protocol):
    """Tasks as docs/labelmelite-api.md describes them; every method may be called from any thread, and may wait."""

    question: Question

    def described(self) -> dict[str, Any] | None:
        """Return the run and the iteration that pages name; None where there is no loop."""
        ...

    def close(self) -> None:
        """End what runs in the background, and leave what was answered so far where it belongs."""
        ...

    def next_task(self, annotator: str, kind: str, layout: str | None, wanted: list[str]) -> dict[str, Any]:
        """Return {"task", "message", "complete"}; `wanted` are items of edits that somebody asks for."""
        ...

    def preview(self, layout: str | None) -> dict[str, Any]:
        """Return what a task looks like, for somebody who only looks: nothing is leased or saved."""
        ...

    def answer(self, annotator: str, task: str, client: str, answers: list[Any]) -> list[dict[str, Any]]:
        """Save answers one by one and return an acknowledgement for each."""
        ...

    def renew(self, annotator: str, task: str) -> dict[str, Any]:
        """Keep a task for longer."""
        ...

    def submit(self, annotator: str, task: str, seconds: float, submission: str = "") -> dict[str, Any]:
        """End a task; return {"accepted", "message", "submitted"}.

        `submitted` counts this person's tasks so far in this submission of a platform (`crowd.submission_of`).
        """
        ...

    def give_back(self, annotator: str, task: str) -> None:
        """End a task before all of it is answered."""
        ...

    def place(self, annotator: str, item: str) -> tuple[str, str]:
        """Return where the image of an item lies: a folder or URL base, and a name in it."""
        ...

    def crop(self, annotator: str, item: str, out: int, pixels: Pixels) -> bytes:
        """Return the plain crop of an item as JPEG, `out` pixels a side."""
        ...

    def image(self, annotator: str, item: str, side: int | None, pixels: Pixels) -> tuple[bytes, str]:
        """Return the whole image of an item and its media type."""
        ...
