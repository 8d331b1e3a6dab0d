"""Reads a multipart/form-data body part by part, refusing early and precisely.

Built on werkzeug's sans-I/O decoder instead of `request.files`, because that one turns invalid UTF-8 into
replacement characters, takes any number of unknown parts, and finds out that a file is too large only
after all of it has been written down. Knows parts and their limits; knows nothing of products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from web import problems
from web.problems import FieldError, ProblemError

_READ_BYTES = 64 * 1024
# The decoder holds at most one read and the headers of one part; real headers are a few hundred bytes.
_DECODER_BYTES = 4 * _READ_BYTES
# Four texts and eight photos are twelve; a browser adds a few empty file inputs.
_MAX_PARTS = 100


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class Form:
    texts: dict[str, str] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """`texts` maps each text field to its largest size in bytes; `files` names the one field of files."""

    texts: Mapping[str, int]
    files: str
    max_files: int
    max_file_bytes: int


class _Part:
    def __init__(self, name: str, is_file: bool, max_bytes: int, refuse: Callable[[], ProblemError]) -> None:
        self.name = name
        self.is_file = is_file
        self.data = bytearray()
        self._max_bytes = max_bytes
        self._refuse = refuse

    def add(self, data: bytes) -> None:
        if len(self.data) + len(data) > self._max_bytes:
            raise self._refuse()
        self.data += data


def read_form(
    stream: Readable, boundary: str | None, limits: Limits, file_too_large: Callable[[int], ProblemError]
) -> Form:
    """The form in `stream`. `file_too_large(number)` makes the refusal of the file of that number, from 1."""
    if not boundary:
        raise _malformed("the Content-Type header has no boundary")
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), _DECODER_BYTES)
    form = Form()
    part: _Part | None = None
    parts = 0
    while True:
        try:
            event = decoder.next_event()
        except ValueError as error:
            raise _malformed(str(error)) from error
        if isinstance(event, NeedData):
            data = stream.read(_READ_BYTES)
            try:
                decoder.receive_data(data or None)
            except RequestEntityTooLarge as error:
                raise _malformed("the headers of a part are too long") from error
        elif isinstance(event, Field | File):
            parts += 1
            if parts > _MAX_PARTS:
                raise _malformed(f"it has more than {_MAX_PARTS} parts")
            part = _open_part(event, form, limits, file_too_large)
        elif isinstance(event, Data) and part is not None:
            part.add(event.data)
            if not event.more_data:
                _close_part(part, form)
                part = None
        elif isinstance(event, Epilogue):
            return form


def _open_part(
    event: Field | File, form: Form, limits: Limits, file_too_large: Callable[[int], ProblemError]
) -> _Part | None:
    """None for a file input that was left empty: browsers send it as a part without name and content."""
    name = event.name
    if not name:
        raise _malformed("a part has no name")
    if name == limits.files:
        if isinstance(event, Field):
            raise _invalid(name, "is not a file: send the picture itself, with a file name")
        number = len(form.files) + 1
        if number > limits.max_files and event.filename:
            raise ProblemError(problems.TOO_MANY_PHOTOS, f"At most {limits.max_files} photos are accepted.")
        if not event.filename:
            return _Part(name, True, 0, lambda: _invalid(name, "has content but no file name"))
        return _Part(name, True, limits.max_file_bytes, lambda: file_too_large(number))
    if name not in limits.texts:
        accepted = ", ".join([*limits.texts, limits.files])
        raise _invalid(name, f"is not a field of this form; the fields are {accepted}")
    if isinstance(event, File):
        raise _invalid(name, "is a text field: send it without a file name")
    if name in form.texts:
        raise _invalid(name, "is given twice")
    max_bytes = limits.texts[name]
    return _Part(name, False, max_bytes, lambda: _invalid(name, f"is longer than {max_bytes:,} bytes"))


def _close_part(part: _Part, form: Form) -> None:
    if not part.is_file:
        try:
            # Browsers end a line of a text field with two characters, and count it as one (HTML, "constructing the
            # entry list").
            form.texts[part.name] = part.data.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise _invalid(part.name, "is not valid UTF-8") from error
    elif part.data or part._max_bytes:
        form.files.append(bytes(part.data))


def _malformed(reason: str) -> ProblemError:
    return ProblemError(problems.MALFORMED_MULTIPART, f"The form cannot be read: {reason}.")


def _invalid(name: str, reason: str) -> ProblemError:
    shown = name if len(name) <= 80 else name[:80] + "…"
    return ProblemError(problems.INVALID_FIELDS, f"{shown} {reason}.", errors=[FieldError(shown, reason)])
