"""Decodes run-length encoded BMPs: RLE8 and RLE4 with their escapes.

Importing this module replaces Pillow's decoder, which ignores the end of a line without pixels, and rejects images that
end before their last pixel.
"""

from PIL import Image, ImageFile

from service.imaging.limits import TooManyReads

END_OF_LINE, END_OF_BITMAP, DELTA = 0, 1, 2
"""The second byte of an escape, whose first byte is 0. A larger second byte is a number of literal pixels."""
MAX_BYTES_PER_PIXEL = 4  # a run, or half of a move and a run; the end of a line counts as a pixel
# The pixels of a byte.
_OF_RLE8 = [bytes((byte,)) for byte in range(256)]
_OF_RLE4 = [bytes((byte >> 4, byte & 15)) for byte in range(256)]


class RunLengthDecoder(ImageFile.PyDecoder):
    """Decodes one image. Pixels that no run draws have the first color of the palette.

    A run does not continue on the next line: what is beyond the end of its line is not drawn.
    """

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        """Raises EOFError for a file that is cut off, and TooManyReads for one that draws too little."""
        assert self.fd is not None
        width, height = self.state.xsize, self.state.ysize
        encoded = self.fd.read(max_bytes := MAX_BYTES_PER_PIXEL * (width + 1) * height)
        try:
            pixels = _decode_runs(encoded, width, height, _OF_RLE4 if self.args[1] else _OF_RLE8)
        except IndexError:
            if len(encoded) == max_bytes:
                raise TooManyReads("it consists of too many small parts") from None
            raise EOFError from None
        self.set_as_raw(pixels, "L" if self.mode in ("1", "L") else "P", (0, self.args[-1]))
        return -1, 0


def _decode_runs(encoded: bytes, width: int, height: int, pixels_of: list[bytes]) -> bytearray:
    """Returns one byte per pixel, with the lines in the order of the file. Raises IndexError for missing bytes."""
    pixels, x, y, position = bytearray(width * height), 0, 0, 0
    while y < height - 1 or (y < height and x < width):
        count, value = encoded[position], encoded[position + 1]
        position += 2
        if count == 0:
            if value == END_OF_BITMAP:
                break
            if value == END_OF_LINE:
                x, y = 0, y + 1
                continue
            if value == DELTA:
                x, y = x + encoded[position], y + encoded[position + 1]
                position += 2
                continue
            count, size = value, -(-value // len(pixels_of[0]))
            run = b"".join([pixels_of[byte] for byte in encoded[position : position + size]])
            position += size + size % 2  # the number of bytes is even
            if position > len(encoded):
                raise IndexError
        else:
            run = pixels_of[value] * count
        visible = max(0, min(count, width - x))
        start = y * width + x
        pixels[start : start + visible] = run[:visible]
        x += count
    return pixels


Image.register_decoder("bmp_rle", RunLengthDecoder)
