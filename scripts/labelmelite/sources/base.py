"""What a source of a data set gives: categories, images, and the objects that are there before anybody draws."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from segloop.data.masks import Rle

Kind = Literal["coco", "folder", "loop", "bundle"]


@dataclass(frozen=True)
class Category:
    """A category; `number` is its id in files."""

    number: int
    name: str
    definition: str = ""


@dataclass(frozen=True)
class Image:
    """An image; `file_name` is relative to the root, a size of None is found when the image is opened."""

    number: int
    file_name: str
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Object:
    """An object; `image` and `category` are their numbers in files, `mask` is checked and of the image's size."""

    id: str
    image: int
    category: int
    mask: Rle
    score: float | None = None
    crowd: bool = False
    provenance: dict[str, Any] | None = None


class Source(Protocol):
    """A data set as it is read; each iteration may be asked for once.

    Attributes
    ----------
    name
        What people see.
    kind
        Which source this is.
    key
        Text that is the same each time the same set is read.
    fingerprint
        Text that changes when the set does.
    root
        Folder or URL base of the images; one of the allowed roots.
    """

    name: str
    kind: Kind
    key: str
    fingerprint: str
    root: str

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Records that could not be used, filled while the set is read: what, and why."""
        ...

    def categories(self) -> Iterable[Category]:
        """Return the categories."""
        ...

    def images(self) -> Iterable[Image]:
        """Return the images."""
        ...

    def objects(self) -> Iterable[Object]:
        """Return the objects, after the images."""
        ...

    def info(self) -> dict[str, Any]:
        """Return what an export repeats: the source's own head, with licences."""
        ...


@dataclass
class ListSource:
    """A source whose records are at hand."""

    name: str
    kind: Kind
    key: str
    fingerprint: str
    root: str
    category_list: list[Category] = field(default_factory=list)
    image_list: list[Image] = field(default_factory=list)
    object_list: list[Object] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    head: dict[str, Any] = field(default_factory=dict)

    def categories(self) -> Iterable[Category]:
        """Return the categories."""
        return self.category_list

    def images(self) -> Iterable[Image]:
        """Return the images."""
        return self.image_list

    def objects(self) -> Iterable[Object]:
        """Return the objects."""
        return self.object_list

    def info(self) -> dict[str, Any]:
        """Return the head."""
        return self.head
