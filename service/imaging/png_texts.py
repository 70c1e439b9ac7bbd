"""Unpacks only those compressed parts of PNG files that are used: the EXIF data and the XMP data, each once.

Pillow unpacks each color profile and each text to at most a megabyte while it opens a file. A file of 40 KB with forty
texts takes more than 100 ms to open.
"""

from PIL import ImageFile, PngImagePlugin

EXIF_TEXT = b"Raw profile type exif\0"
XMP_TEXT = b"XML:com.adobe.xmp\0"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IS_COMPRESSED = b"\1"


class PngStream(PngImagePlugin.PngStream):
    """The chunks of a PNG file."""

    def chunk_iCCP(self, pos: int, length: int) -> bytes:  # Pillow calls it by the name of the chunk
        return self._skip(length)

    def chunk_zTXt(self, pos: int, length: int) -> bytes:
        return super().chunk_zTXt(pos, length) if self._is_new(pos, EXIF_TEXT) else self._skip(length)

    def chunk_iTXt(self, pos: int, length: int) -> bytes:
        return super().chunk_iTXt(pos, length) if self._is_new(pos, XMP_TEXT) else self._skip(length)

    def _is_new(self, pos: int, keyword: bytes) -> bool:
        """Whether the text at `pos` has this keyword, and is the first one that has it."""
        assert self.fp is not None
        beginning = self.fp.read(len(keyword))
        self.fp.seek(pos)
        return beginning == keyword and keyword[:-1].decode() not in self.im_text

    def _skip(self, length: int) -> bytes:
        assert self.fp is not None
        return ImageFile._safe_read(self.fp, length)


PngImagePlugin.PngStream = PngStream  # type: ignore[misc]  # Pillow has no other way to choose the class


def is_slow_to_open(data: bytes) -> bool:
    """Whether the file is a PNG with compressed EXIF or XMP data. Opening it may take milliseconds, even if it is
    small."""
    return data.startswith(PNG_SIGNATURE) and (
        b"zTXt" + EXIF_TEXT in data or b"iTXt" + XMP_TEXT + _IS_COMPRESSED in data
    )
