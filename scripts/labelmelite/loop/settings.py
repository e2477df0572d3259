"""What the person who starts the server decides about the loop's tasks."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LoopSettings:
    """How questions are dealt out and answers are judged.

    Attributes
    ----------
    lease_seconds
        A task without a sign of life for so long goes to somebody else; what was answered in it counts.
    questions, edits
        Items of a task of questions, and of one of edits or redraws.
    least_seconds
        A task that took less than this for each of its items is set aside: nobody can look so fast.
    most_seconds
        More time than this on one item is not counted: somebody went for a coffee.
    gate
        Who has less than this share of the last gold questions right gets no new work; None: everybody does.
    gate_window, gate_least
        So many of the last gold questions count, and nobody is judged by fewer than the second number.
    patience
        Seconds that a request for a task waits while the policy decides and nothing else is open.
    forecast
        Masks of an iteration up to which the remaining questions are forecast; in larger ones only their limit is told.
    """

    lease_seconds: float = 600.0
    questions: int = 30
    edits: int = 5
    least_seconds: float = 0.7
    most_seconds: float = 120.0
    gate: float | None = 0.6
    gate_window: int = 20
    gate_least: int = 5
    patience: float = 3.0
    forecast: int = 20_000
