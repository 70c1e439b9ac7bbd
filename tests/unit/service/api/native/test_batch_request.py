"""JSON batches are parsed image by image, and errors are raised before large objects are built."""

import base64
import json
import time

import pytest

from service.api.native.batch_request import MAX_ID_LENGTH, parse
from service.errors import BadImage, BadParameter, BadRequest, ConvoyError, TooManyImages

MAX_IMAGES = 8
MANY = b"{" + b",".join([b'"data":""'] * 1001) + b"}"
GOOD = {"data": base64.b64encode(b"image").decode()}


def test_images_keep_their_ids_and_order() -> None:
    body = json.dumps({"images": [GOOD | {"id": "ä"}, GOOD, GOOD | {"id": None}, {"data": ""}]}).encode()
    assert parse(body, MAX_IMAGES) == [("ä", b"image"), (None, b"image"), (None, b"image"), (None, b"")]


@pytest.mark.parametrize("data", ["?", "YQA=A", "Y\ud83d\ude00", "é", "Y", "YQ==="])
def test_an_image_with_invalid_base64_fails_alone(data: str) -> None:
    (_, bad), (_, good) = parse(json.dumps({"images": [{"data": data}, GOOD]}).encode(), MAX_IMAGES)
    assert isinstance(bad, BadImage)
    assert good == b"image"


WRONG: dict[str, tuple[type[ConvoyError], str, object]] = {
    "a list": (BadRequest, "not a JSON object", [GOOD]),
    "nothing": (BadParameter, "images", {}),
    "no list": (BadParameter, "images", {"images": GOOD}),
    "an empty list": (BadParameter, "images", {"images": []}),
    "another field": (BadParameter, "'more' in the body", {"images": [GOOD], "more": 1}),
    "a number": (BadParameter, r"images\.1 is 7", {"images": [GOOD, 7]}),
    "no data": (BadParameter, r"images\.0\.data", {"images": [{"id": "a"}]}),
    "data of another type": (BadParameter, r"images\.0\.data", {"images": [{"data": [1]}]}),
    "a field of an image": (BadParameter, r"'name' in images\.0", {"images": [GOOD | {"name": "a"}]}),
    "an id of another type": (BadParameter, r"images\.0\.id", {"images": [GOOD | {"id": 1}]}),
    "an overlong id": (BadParameter, r"images\.0\.id", {"images": [GOOD | {"id": "a" * (MAX_ID_LENGTH + 1)}]}),
    "too many": (TooManyImages, "9 images", {"images": [GOOD] * (MAX_IMAGES + 1)}),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_request_is_reported(name: str) -> None:
    kind, pattern, request = WRONG[name]
    with pytest.raises(kind, match=pattern):
        parse(json.dumps(request).encode(), MAX_IMAGES)


@pytest.mark.parametrize("body", [b"", b"{", b'{"images": [' + b"[" * 5000, b"\xff", b'{"images": 1e999}'])
def test_invalid_json_is_rejected(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"The body is not (a|valid) JSON"):
        parse(body, MAX_IMAGES)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(b"1", BadParameter), (b"{}", BadRequest), (b"[]", BadParameter), (b'{"data":1}', TooManyImages)],
)
def test_millions_of_wrong_values_cost_little(value: bytes, kind: type[ConvoyError]) -> None:
    body = b'{"images":[' + b",".join([value] * 2_000_000) + b"]}"
    started_s = time.thread_time()
    with pytest.raises(kind):
        parse(body, MAX_IMAGES)
    assert time.thread_time() - started_s < 5


@pytest.mark.parametrize("body", [MANY, b'{"images":[' + MANY + b"]}"])
def test_an_object_with_too_many_members_is_rejected_before_parsing(body: bytes) -> None:
    with pytest.raises((BadParameter, BadRequest), match="has 1001 members; the maximum is 1000"):
        parse(body, MAX_IMAGES)
