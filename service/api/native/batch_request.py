"""A batch of images as JSON, from bytes. What it may hold is described by `BatchRequest`, for /docs.

Pydantic reads such a body into an object a value, and finds every error in it: gigabytes, where it is made for that.
"""

import base64
import binascii
from typing import Any

import simdjson

from service.api.http.json_arrays import check_count, parse_object, shown
from service.errors import BadImage, BadParameter, BadRequest, BadTensor, ConvoyError

IMAGES, DATA, ID = "images", "data", "id"
MAX_ID_LENGTH = 256

Images = list[tuple[str | None, bytes | ConvoyError]]


def parse(body: bytes, max_images: int) -> Images:
    """The id and the bytes of each image; for one whose data is no base64, the error.

    Raises BadRequest for what is no JSON, BadParameter, naming the field, or TooManyImages.
    """
    images = _images(_document(body))
    check_count(len(images), max_images)
    return [_image(image, f"{IMAGES}.{at}") for at, image in enumerate(images)]


def _document(body: bytes) -> Any:
    try:
        return parse_object(body)
    except BadTensor as error:
        raise BadRequest(error.message.replace("The request", "The body", 1)) from None


def _images(document: Any) -> Any:
    _check_names(document, {IMAGES}, "the body")
    images = document.get(IMAGES)
    if not isinstance(images, simdjson.Array) or not len(images):
        raise BadParameter(f"{IMAGES}: a list of at least one image is needed.")
    return images


def _image(image: Any, where: str) -> tuple[str | None, bytes | ConvoyError]:
    if not isinstance(image, simdjson.Object):
        raise BadParameter(f"{where} is {shown(image)}; it must be an object.")
    _check_names(image, {DATA, ID}, where)
    data, name = image.get(DATA), image.get(ID)
    if not isinstance(data, str):
        raise BadParameter(f"{where}.{DATA} must be the image in base64.")
    if name is not None and not (isinstance(name, str) and len(name) <= MAX_ID_LENGTH):
        raise BadParameter(f"{where}.{ID} must be a text of at most {MAX_ID_LENGTH} characters.")
    return name, _from_base64(data)


def _check_names(holder: Any, known: set[str], where: str) -> None:
    for name in holder:
        if name not in known:
            raise BadParameter(f"There is no '{shown(name)}' in {where}; there may be {' and '.join(sorted(known))}.")


def _from_base64(text: str) -> bytes | ConvoyError:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return BadImage(f"The image's data is not base64: {error}.")
