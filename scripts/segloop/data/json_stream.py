"""JSON files of any size, record by record, in the memory of one record.

A COCO file is an object of long lists. A buffer moves along the file; brackets tell where a record ends, a decoder
checks and reads it, and where it lies is told with it, so that it can be read again (decision 023).
"""

import codecs
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from tqdm import tqdm

from segloop import integrity
from segloop.errors import SegloopError

_BLOCK = 1 << 22
# A record longer than this is no record: memory would go on growing until the end of the file.
MAX_RECORD = 1 << 28

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}"]', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,:\[\]{}"]++').match
_BLANKS = re.compile(rb"[ \t\n\r]*+").match


def loads(data: bytes) -> Any:
    """Return the value of a piece of JSON; NaN and halves of characters pass, as the standard library lets them.

    Raises
    ------
    ValueError
        If it is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode())
    except RecursionError as error:
        raise ValueError(str(error)) from None


class Member(NamedTuple):
    """One value of a file: an element of a list of the outermost object, or one of its other values.

    Attributes
    ----------
    key
        The key in the outermost object; empty where the file is a list.
    value
        The value, as `loads` gives it.
    start, length
        Where it lies in the file, in bytes.
    listed
        Whether it is an element of a list.
    """

    key: str
    value: Any
    start: int
    length: int
    listed: bool


class JsonFile:
    """A JSON file whose outermost value is an object or a list.

    Attributes
    ----------
    is_list
        Whether the file is a list; known once `members` has begun.
    lists
        Keys of the outermost object that hold lists, empty ones too, as far as `members` has read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_list = False
        self.lists: set[str] = set()
        self._descriptor = -1
        integrity.check(path)
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
            self.size = os.fstat(self._descriptor).st_size
            os.pread(self._descriptor, 1, 0)
        except FileNotFoundError:
            raise SegloopError(f"{path.absolute()} does not exist. Check the path in the configuration.") from None
        except OSError as error:
            raise _unreadable(path, error) from None

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    __del__ = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def members(self) -> Iterator[Member]:
        """Yield the values of the file, lists element by element.

        Raises
        ------
        SegloopError
            If the file is no JSON, is cut off, or is neither an object nor a list.
        """
        with tqdm(desc=self.path.name, total=self.size, unit="B", unit_scale=True, disable=None) as bar:
            data = _Data(self.path, self._descriptor, bar)
            try:
                yield from self._outermost(data)
                if data.skip():
                    raise data.wrong("there is more after its end")
            except OSError as error:
                raise _unreadable(self.path, error) from None

    def read(self, start: int, length: int) -> Any:
        """Return one record again.

        Raises
        ------
        SegloopError
            If the file has changed.
        """
        try:
            return loads(os.pread(self._descriptor, length, start))
        except (OSError, ValueError):
            raise SegloopError(f"{self.path} changed while it was read. Run this again.") from None

    def _outermost(self, data: "_Data") -> Iterator[Member]:
        opening = data.skip()
        self.is_list = opening == b"["
        if self.is_list:
            yield from self._elements(data, "")
            return
        if opening != b"{":
            raise data.wrong("it is neither an object nor a list")
        data.take()
        seen: set[str] = set()
        while data.skip() != b"}":
            if seen:
                data.expect(b",")
                data.skip()
            key, _, _ = data.value()
            if not isinstance(key, str):
                raise data.wrong("a key is no text")
            if key in seen:
                raise data.wrong(f"it has the key {key!r} twice")
            seen.add(key)
            data.skip()
            data.expect(b":")
            if data.skip() == b"[":
                self.lists.add(key)
                yield from self._elements(data, key)
            else:
                yield Member(key, *data.value(), listed=False)
        data.take()

    def _elements(self, data: "_Data", key: str) -> Iterator[Member]:
        data.take()
        first = True
        while data.skip() != b"]":
            if not first:
                data.expect(b",")
                data.skip()
            first = False
            yield Member(key, *data.value(), listed=True)
        data.take()


def _unreadable(path: Path, error: OSError) -> SegloopError:
    return SegloopError(f"{path.absolute()} cannot be read ({error}). Check the path in the configuration.")


class _Data:
    """A buffer that moves along a file, and a place in it."""

    def __init__(self, path: Path, descriptor: int, bar: "tqdm[Any]") -> None:
        self.path = path
        self._descriptor = descriptor
        self._bar = bar
        self._buffer = b""
        self._place = 0
        # Where the buffer begins, and where the next block does, in bytes of the file.
        self._origin = 0
        self._read = 0
        self._ended = False

    def wrong(self, what: str) -> SegloopError:
        byte = self._origin + self._place
        return SegloopError(f"{self.path} is not valid JSON ({what}, near byte {byte}). Write or download it again.")

    def skip(self) -> bytes:
        """Go to the next byte that is no blank, and return it; empty at the end of the file."""
        while True:
            self._place = _BLANKS(self._buffer, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._buffer):
                return self._buffer[self._place : self._place + 1]
            if self._ended:
                return b""
            self._more(0)

    def take(self) -> None:
        self._place += 1

    def expect(self, character: bytes) -> None:
        if self._buffer[self._place : self._place + 1] != character:
            raise self.wrong(f"{character.decode()!r} is missing")
        self._place += 1

    def value(self) -> tuple[Any, int, int]:
        """Return the value here, and its place and length in the file; go to its end."""
        quick = self._quick_object()
        if quick is not None:
            return quick
        while (end := self._end()) is None:
            if self._ended:
                raise self.wrong("it ends in the middle of a record")
            if len(self._buffer) - self._place > MAX_RECORD:
                raise self.wrong(f"a record is longer than {MAX_RECORD} bytes")
            # Twice as much each time, so that a long record is not tried again for every block of it.
            self._more(len(self._buffer) - self._place)
        try:
            return self._pass(loads(self._buffer[self._place : end]), end)
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def _pass(self, value: Any, end: int) -> tuple[Any, int, int]:
        start, length = self._origin + self._place, end - self._place
        self._place = end
        return value, start, length

    def _quick_object(self) -> tuple[Any, int, int] | None:
        """Return what `value` does, for an object that ends where its brackets first balance; None for all else."""
        # Brackets in texts may mislead, but what the decoder takes for a whole object is one: no whole object begins
        # another value.
        buffer, place = self._buffer, self._place
        if buffer[place : place + 1] != b"{":
            return None
        depth, end = 0, place
        while depth or end == place:
            closing = buffer.find(b"}", end) + 1
            if closing == 0:
                return None
            depth += buffer.count(b"{", end, closing) - 1
            end = closing
        try:
            return self._pass(loads(buffer[place:end]), end)
        except ValueError:
            return None

    def _end(self) -> int | None:
        """Return where the value here ends, or None if that is beyond the buffer."""
        buffer, place = self._buffer, self._place
        if found := _SCALAR(buffer, place):
            # A number at the end of the buffer may go on in the next block.
            return found.end() if found.end() < len(buffer) or self._ended else None
        depth = 0
        for token in _TOKEN.finditer(buffer, place):
            character = buffer[token.start() : token.start() + 1]
            if character == b'"' and token.end() == token.start() + 1:
                return None
            depth += 1 if character in b"[{" else -1 if character in b"]}" else 0
            if depth <= 0:
                return token.end()
        return None

    def _more(self, at_least: int) -> None:
        """Drop what was passed, and read on."""
        blocks = [self._buffer[self._place :]]
        self._origin += self._place
        self._place = 0
        wanted = max(_BLOCK, at_least)
        while wanted > 0 and not self._ended:
            block = os.pread(self._descriptor, _BLOCK, self._read)
            self._ended = not block
            skipped = len(codecs.BOM_UTF8) if self._read == 0 and block.startswith(codecs.BOM_UTF8) else 0
            self._origin += skipped
            self._read += len(block)
            self._bar.update(len(block))
            wanted -= len(block)
            blocks.append(block[skipped:])
        self._buffer = b"".join(blocks)
