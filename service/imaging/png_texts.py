"""Unpacks only those compressed parts of PNG files that are used: the EXIF data and the XMP data, each once.

Pillow unpacks each color profile and each text to at most a megabyte while it opens a file. A file of 40 KB with forty
texts takes more than 100 ms to open.
"""

from typing import IO

from PIL import ImageFile, PngImagePlugin

EXIF_TEXT = b"Raw profile type exif\0"
XMP_TEXT = b"XML:com.adobe.xmp\0"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"zTXt", b"iTXt")
MAX_INSPECTED_CHUNKS = 32
_CHUNK_BYTES = 12
"""Bytes of a chunk in addition to its content: length, type and checksum."""


class PngStream(PngImagePlugin.PngStream):
    """The chunks of a PNG file."""

    def __init__(self, fp: IO[bytes]) -> None:
        super().__init__(fp)
        self._unpacked: set[bytes] = set()

    def chunk_iCCP(self, pos: int, length: int) -> bytes:  # Pillow calls it by the name of the chunk
        return self._skip(length)

    def chunk_zTXt(self, pos: int, length: int) -> bytes:
        return super().chunk_zTXt(pos, length) if self._is_new(pos, EXIF_TEXT) else self._skip(length)

    def chunk_iTXt(self, pos: int, length: int) -> bytes:
        return super().chunk_iTXt(pos, length) if self._is_new(pos, XMP_TEXT) else self._skip(length)

    def _is_new(self, pos: int, keyword: bytes) -> bool:
        """Whether the text at `pos` has this keyword, and is the first one that has it.

        Texts with errors count too: Pillow forgets them after it has unpacked them.
        """
        assert self.fp is not None
        beginning = self.fp.read(len(keyword))
        self.fp.seek(pos)
        if beginning != keyword or keyword in self._unpacked:
            return False
        self._unpacked.add(keyword)
        return True

    def _skip(self, length: int) -> bytes:
        assert self.fp is not None
        return ImageFile._safe_read(self.fp, length)


PngImagePlugin.PngStream = PngStream  # type: ignore[misc]  # Pillow has no other way to choose the class


def is_slow_to_open(data: bytes) -> bool:
    """Whether the file is a PNG that may contain compressed EXIF or XMP data. Opening it may take milliseconds, even if
    it is small.

    Inspects the beginning of each chunk, because a search through the file would take 5 ms per megabyte. True for files
    with more than MAX_INSPECTED_CHUNKS chunks.
    """
    if not data.startswith(PNG_SIGNATURE):
        return False
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_INSPECTED_CHUNKS):
        if position >= len(data):
            return False
        if data[position + 4 : position + 8] in TEXT_CHUNKS:
            return True
        position += _CHUNK_BYTES + int.from_bytes(data[position : position + 4])
    return position < len(data)
