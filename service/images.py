"""Bytes to pixels: formats, orientation, transparency and limits. Knows no model and no HTTP.

Training reads its evaluation pictures through here too, so that both halves see the same pixels.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Importing a plugin registers its format. Left to itself Pillow would import all forty at the first odd picture.
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # isort: skip # noqa: F401

from service.errors import BadImage, ImageTooLarge, UnsupportedImage

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
ORIENTATION_TAG = 0x0112

# Our own limit is checked on the header of every picture; Pillow's would only warn up to twice its value.
Image.MAX_IMAGE_PIXELS = None

# First bytes of formats that people do send, and that deserve a better answer than "not an image".
_FOREIGN = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\1\0": "ICO",
}


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """Reads the header of an encoded picture; cheap, decodes no pixel.

    Raises BadImage, UnsupportedImage, or ImageTooLarge when width x height is over `max_pixels`.
    """
    if not data:
        raise BadImage("The body is empty; a picture was expected.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _not_a_picture(data) from None
    except Exception as error:  # Pillow's plugins raise many kinds for broken headers
        raise BadImage(f"The picture's header is damaged: {error}.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"The picture has {width} x {height} pixels; the limit is {max_pixels} pixels.")
    return image


def read_pixels(image: Image.Image, channels: int, background: int) -> NDArray[np.uint8]:
    """Decodes an opened picture (of an animation the first frame), upright, transparency laid over `background`.

    Returns uint8, shape (height, width, channels); 1 channel is luma (ITU-R 601-2), 3 are RGB. Raises BadImage.
    """
    try:
        image.load()
        image = _upright(image)
        if image.has_transparency_data:
            image = _over(image, background)
        elif image.mode.startswith("I"):
            image = _eight_bits(image)
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    except Exception as error:  # as above, and the codecs' own
        raise BadImage(f"The picture is damaged or truncated: {error}.") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def decode(data: bytes, channels: int, background: int, max_pixels: int) -> NDArray[np.uint8]:
    """`open_image` and `read_pixels` in one."""
    return read_pixels(open_image(data, max_pixels), channels, background)


def _not_a_picture(data: bytes) -> BadImage | UnsupportedImage:
    head = data[:16].lstrip()
    for signature, name in _FOREIGN.items():
        if head.startswith(signature):
            return UnsupportedImage(f"The picture is a {name} file, which is not read here.")
    if data[4:8] == b"ftyp":
        return UnsupportedImage("The file is HEIC, AVIF or a video, which is not read here.")
    return BadImage("The bytes are not a picture, or its header is damaged.")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ORIENTATION_TAG, 1) != 1
    except Exception:  # damaged EXIF: the pixels are still good
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _over(image: Image.Image, background: int) -> Image.Image:
    canvas = Image.new("RGBA", image.size, (background, background, background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16-bit grey clips at 255 instead of scaling.
    return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
