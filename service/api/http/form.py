"""Parses the files and text fields of a multipart form from a body in memory.

python-multipart finds the parts. Nothing is written to a disk, and no part is copied more than once.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest

if TYPE_CHECKING:  # exists only for type checkers
    from python_multipart.multipart import MultipartCallbacks

MULTIPART = b"multipart/form-data"
SLICE_BYTES = 1 << 20
"""Bytes of the body that are passed to the parser at a time, because it holds the GIL while it searches a boundary."""
MALFORMED_HINT = "The boundary in Content-Type must be the same as in the body; let the HTTP client write both."
MAX_BOUNDARY_BYTES = 256  # python-multipart's limit
MAX_FIELDS = 100
MAX_FIELD_BYTES = 1024  # of a text field; the rest is dropped, because no parameter is that long


Fields = list[tuple[str, str]]


class Form(NamedTuple):
    """Name and bytes of each file of one field, and name and value of each text field, in order. Values are truncated
    to MAX_FIELD_BYTES."""

    files: list[tuple[str, bytes]]
    fields: Fields


@dataclass(slots=True)
class _Part:
    disposition: bytes = b""
    name: str = ""
    filename: str | None = None
    data: list[bytes] = field(default_factory=list)
    free_bytes: int = MAX_FIELD_BYTES  # of a text field


class _FormReader:
    """Collects the parts that a parser with its callbacks reports.

    Has no reference to the parser, because a cycle would keep the body in memory until the garbage collector runs.
    """

    def __init__(self, field: str, max_files: int) -> None:
        self._field = field
        self._max_files = max_files
        self._part = _Part()
        self._header_name = self._header_value = b""
        self._files = self._fields = 0
        self.parts: list[_Part] = []
        self.is_complete = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._part.disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.disposition)
        if b"name" not in options:
            raise BadRequest("A part of the multipart body has no name in its Content-Disposition.")
        part.name = _decode(options[b"name"])
        if b"filename" in options:
            part.filename = _decode(options[b"filename"])
        if part.filename:
            self._count_file()
        else:  # a text field, or perhaps an empty file input of an HTML form
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise BadRequest(f"The multipart body has more than {MAX_FIELDS} fields.")

    def _count_file(self) -> None:
        self._files += 1
        if self._files > self._max_files:
            number = "one file" if self._max_files == 1 else f"{self._max_files} files"
            advice = f"Send at most {number} per request, in the field '{self._field}'."
            raise BadRequest(f"The multipart body has more than {number}.", advice)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.filename is not None:
            if not part.filename and not part.data:
                self._count_file()
            part.data.append(data[start:end])
        elif part.free_bytes > 0:
            part.data.append(data[start : min(end, start + part.free_bytes)])
            part.free_bytes -= end - start

    def _on_part_end(self) -> None:
        if self._part.filename != "" or self._part.data:  # otherwise an empty file input of an HTML form
            self.parts.append(self._part)

    def _on_end(self) -> None:
        self.is_complete = True


def parse_form(content_type: bytes, body: bytes, field: str, max_files: int) -> Form:
    """Returns the files of the multipart form's `field`, and all text fields. Raises BadRequest."""
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise BadRequest("The multipart body cannot be read: its Content-Type has no boundary.")
    if len(options[b"boundary"]) > MAX_BOUNDARY_BYTES:
        raise BadRequest(f"The boundary of the multipart body has more than {MAX_BOUNDARY_BYTES} bytes.")
    try:
        reader = _FormReader(field, max_files)
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        for start in range(0, len(body), SLICE_BYTES):
            parser.write(body[start : start + SLICE_BYTES])
        parser.finalize()
    except FormParserError:
        raise BadRequest("The multipart body is malformed.", MALFORMED_HINT) from None
    if not reader.is_complete:
        raise BadRequest("The multipart body cannot be read: it is cut off before its last boundary.")
    files = [(part.filename, part.data) for part in reader.parts if part.name == field and part.filename is not None]
    if not files:
        raise BadRequest(f"The multipart body has no file in a field named '{field}'.")
    fields = [(part.name, _decode(b"".join(part.data))) for part in reader.parts if part.filename is None]
    return Form([(name, b"".join(data)) for name, data in files], fields)


def is_form(content_type: bytes) -> bool:
    return media_type(content_type) == MULTIPART


def media_type(content_type: bytes) -> bytes:
    """Returns the type without parameters, in lower case, because types are case-insensitive (RFC 9110, 8.3)."""
    return content_type.partition(b";")[0].strip().lower()


def _decode(name: bytes) -> str:
    """Decodes a string of a form as UTF-8 (RFC 7578, 5.1.2), or as Latin-1 if it is not valid UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
