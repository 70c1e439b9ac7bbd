"""Decodes run-length encoded BMPs that end before their last pixel, as encoders with delta escapes write them.

The format allows an image to end anywhere. The remaining pixels have the first color of the palette. Pillow rejects
such images, so importing this module replaces Pillow's decoder.
"""

from typing import Any

from PIL import Image
from PIL.BmpImagePlugin import BmpRleDecoder

END_OF_BITMAP = b"\0\1"


class RunLengthDecoder(BmpRleDecoder):
    """Pillow's decoder, which also adds the pixels after the end of the bitmap."""

    def set_as_raw(self, data: bytes | bytearray, rawmode: str | None = None, extra: tuple[Any, ...] = ()) -> None:
        missing = self.state.xsize * self.state.ysize - len(data)
        if missing > 0 and self._is_at_end_of_bitmap():  # otherwise the file is cut off
            data = bytes(data) + bytes(missing)
        super().set_as_raw(data, rawmode, extra)

    def _is_at_end_of_bitmap(self) -> bool:
        assert self.fd is not None
        self.fd.seek(-len(END_OF_BITMAP), 1)
        return self.fd.read(len(END_OF_BITMAP)) == END_OF_BITMAP


Image.register_decoder("bmp_rle", RunLengthDecoder)
