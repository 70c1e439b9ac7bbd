"""Parses a batch of images from JSON. `BatchRequest` describes the format for /docs.

Pydantic is not used, because it creates an object per value and collects every error, which takes gigabytes for a
malicious body.
"""

from typing import Any

import simdjson

from service.api.http.base64_text import decode_base64
from service.api.http.json_arrays import MAX_MEMBERS, JsonDocument, abbreviate, check_image_count, parse_object
from service.api.http.large_json import LargeArray, LargeText
from service.errors import BadImage, BadParameter, BadRequest, BadTensor, ConvoyError

IMAGES, DATA, ID = "images", "data", "id"
MAX_ID_LENGTH = 256
JSON_HINT = 'Send {"images": [{"data": "<base64>"}]}, or a multipart form with the images in the field files.'
TEXT_TYPES = (str, LargeText)

Images = list[tuple[str | None, bytes | ConvoyError]]


def parse(body: bytes, max_images: int) -> Images:
    """Returns the id and the bytes of each image, or the error of an image that is not base64.

    Raises BadRequest for invalid JSON, BadParameter, naming the field, or TooManyImages.
    """
    document = _parse_body(body)
    images = _image_list(document)
    check_image_count(len(images), max_images)
    return [_parse_image(image, f"{IMAGES}.{at}", document) for at, image in enumerate(images)]


def _parse_body(body: bytes) -> JsonDocument:
    try:
        return parse_object(body)
    except BadTensor as error:
        raise BadRequest(error.message.replace("The request", "The body", 1), JSON_HINT) from None


def _image_list(document: JsonDocument) -> Any:
    _check_names(document.root, {IMAGES}, "the body")
    images = document.value(document.root.get(IMAGES))
    if isinstance(images, LargeArray):
        raise BadParameter(f"{IMAGES} contains numbers or lists; each image must be an object.")
    if not isinstance(images, simdjson.Array) or not len(images):
        raise BadParameter(f"{IMAGES} must be a list of at least one image.")
    return images


def _parse_image(image: Any, field: str, document: JsonDocument) -> tuple[str | None, bytes | ConvoyError]:
    if not isinstance(image, simdjson.Object):
        raise BadParameter(f"{field} is {abbreviate(image)}; it must be an object.")
    if len(image) > MAX_MEMBERS:
        raise BadParameter(f"{field} has {len(image)} members; the maximum is {MAX_MEMBERS}.")
    _check_names(image, {DATA, ID}, field)
    data, name = document.value(image.get(DATA)), document.value(image.get(ID))
    if not isinstance(data, TEXT_TYPES):
        raise BadParameter(f"{field}.{DATA} must be the image in base64.")
    if name is not None and not (isinstance(name, str) and len(name) <= MAX_ID_LENGTH):
        raise BadParameter(f"{field}.{ID} must be a string of at most {MAX_ID_LENGTH} characters.")
    return name, _decode(data)


def _check_names(json_object: Any, allowed: set[str], field: str) -> None:
    for name in json_object:
        if name not in allowed:
            raise BadParameter(
                f"Unknown field '{abbreviate(name)}' in {field}; allowed: {' and '.join(sorted(allowed))}."
            )


def _decode(text: str | LargeText) -> bytes | ConvoyError:
    try:
        return decode_base64(text)
    except ValueError as error:
        return BadImage(f"The image's data is not base64: {error}.")
