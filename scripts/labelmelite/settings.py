"""What the person who starts the server decides: options of the command line, and a file for the rest."""

from dataclasses import field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from labelmelite.loop.settings import LoopSettings
from segloop.errors import SegloopError
from segloop.files import read_yaml

Adapter = Literal["lab", "study", "mturk", "file"]

MTURK_HOSTS: Final = ("https://www.mturk.com", "https://workersandbox.mturk.com")
"""Where workers see external questions, and where these are submitted to."""

_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Study:
    """How a participant platform names things in the address that it opens.

    Attributes
    ----------
    participant, study, submission
        Names of the parameters of the query.
    completion
        The address that a participant is sent to after the last task; None: a text says that all is done.
    tasks
        Tasks of one submission.
    """

    participant: str = "participant"
    study: str = "study"
    submission: str = "submission"
    completion: str | None = None
    tasks: int = 1


@dataclass(frozen=True, config=_STRICT)
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


@dataclass(frozen=True, config=_STRICT)
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
    loop
        How the questions of an iteration are dealt out and answers are judged.
    wage
        US dollars an hour, of the pay list.
    frame_hosts, submit_hosts
        Origins that may show the pages in a frame and that a form may be sent to, beside MTurk's when that is on.
    copies, copy_minutes
        A folder into which the database is copied, and how often; for a database on a disk of one machine.
    session_days
        After which a session ends.
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
    loop: LoopSettings = field(default_factory=LoopSettings)
    wage: float = 15.0
    frame_hosts: tuple[str, ...] = ()
    submit_hosts: tuple[str, ...] = ()
    copies: Path | None = None
    copy_minutes: float = 10.0
    session_days: float = 30.0
    cache_bytes: int = 4 << 30


def read_settings(path: Path | None, defaults: dict[str, Any] | None = None, **options: Any) -> Settings:
    """Return the settings of a YAML file, over which the options of the command line go.

    Parameters
    ----------
    defaults
        Where what is labelled knows better than the defaults of `Settings`.

    Raises
    ------
    SegloopError
        If a setting is unknown or of another kind, if tokens are off on an address that others reach, if copies would
        go where the database lies, or if the public address is none.
    """
    given = {} if path is None else read_yaml(path, "the settings") or {}
    if not isinstance(given, dict):
        raise SegloopError(f"{path} must hold settings by name, such as `adapter: study`.")
    try:
        settings = TypeAdapter(Settings).validate_python({**(defaults or {}), **given, **options})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SegloopError(f"{path or 'the command line'}: {name}: {first['msg']}.") from None
    if settings.copies is not None and settings.copies.resolve() == settings.data.resolve():
        raise SegloopError(
            f"--copies and --data both name {settings.copies}: copies would replace the database itself. "
            "Name another folder with --copies."
        )
    if not settings.tokens and settings.host not in LOOPBACK:
        raise SegloopError(f"others can reach {settings.host}, so that everybody needs a token. Leave out --no-tokens.")
    if settings.public is not None and not _is_origin(settings.public):
        raise SegloopError(
            f"public: {settings.public!r} is no whole address of a server. Write it as the address bar shows it, "
            "without a path, such as https://label.example.org."
        )
    return settings


def _is_origin(address: str) -> bool:
    try:
        found = urlsplit(address)
        port = found.port
    except ValueError:
        return False
    whole = found.scheme in ("http", "https") and bool(found.hostname) and port != 0
    return whole and found.path in ("", "/") and not (found.query or found.fragment or "@" in found.netloc)


LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
