"""What the person who starts the server decides."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Adapter = Literal["lab", "study", "mturk", "file"]

MTURK_HOSTS: Final = ("https://www.mturk.com", "https://workersandbox.mturk.com")
"""Where workers see external questions, and where these are submitted to."""


@dataclass(frozen=True)
class Study:
    """How a participant platform names things in the address that it opens.

    Attributes
    ----------
    participant, study, submission
        Names of the parameters of the query.
    completion
        The address that a participant is sent to after the last task; None: a text says that all is done.
    """

    participant: str = "participant"
    study: str = "study"
    submission: str = "submission"
    completion: str | None = None


@dataclass(frozen=True)
class Question:
    """What people are asked, and how.

    Attributes
    ----------
    text
        The question; `{category}` is replaced.
    rule
        One sentence that says when to answer yes.
    t_iou
        A mask is good when its IoU with the object is above this.
    text_version
        Stands in every answer; a new wording is a new version.
    default
        What an item holds before it is answered.
    layout
        How items are shown when a task does not say.
    advance
        Whether the filmstrip moves on by itself.
    """

    text: str = "Is this a good mask of {category}?"
    rule: str = "It covers the whole object and nothing else; a few pixels along its boundary do not matter."
    t_iou: float = 0.7
    text_version: str = "1"
    default: Literal["none", "no"] = "none"
    layout: Literal["filmstrip", "grid"] = "filmstrip"
    advance: bool = True


@dataclass(frozen=True)
class Settings:
    """Everything `create_app` needs.

    Attributes
    ----------
    data
        Folder of the database and of cached images.
    roots
        Folders and URL bases that may hold images.
    host, port
        Where the server listens.
    public
        The address that people type when a proxy stands before the server, such as https://label.example.org.
    adapter
        How people come in.
    tokens
        Whether everybody needs a token; without, whoever reaches the server is its owner (127.0.0.1 alone).
    frame_hosts, submit_hosts
        Origins that may show the pages in a frame and that a form may be sent to, beside MTurk's when that is on.
    session_days
        After which a session ends.
    lease_minutes
        For which a task belongs to one annotator without a sign of life.
    cache_bytes
        Of scaled images, crops and fetched images on disk.
    """

    data: Path
    roots: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    public: str | None = None
    adapter: Adapter = "lab"
    tokens: bool = True
    study: Study = field(default_factory=Study)
    question: Question = field(default_factory=Question)
    frame_hosts: tuple[str, ...] = ()
    submit_hosts: tuple[str, ...] = ()
    session_days: float = 30.0
    lease_minutes: float = 10.0
    cache_bytes: int = 4 << 30
