"""The requests of the load tests and their expected responses. Independent of locust and HTTP clients."""

import base64
import json
import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.digit_images import Digit

BATCH_SIZES = (8, 32)
BATCHES_OF_EACH_SIZE = 10
PNG = "image/png"
BOUNDARY = "convoy-image-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"
TIFF = b"II*\0" + bytes(64)


@dataclass(frozen=True)
class CheckedRequest:
    """A POST request with the expected outcome of each image: the best label or an error code."""

    name: str
    path: str
    body: bytes
    content_type: str
    expected: tuple[str, ...]
    status: int = 200

    def check_answer(self, status: int, body: bytes) -> str | None:
        """Returns a description of the fault in the response, or None if it is correct."""
        if status != self.status:
            return f"status {status} instead of {self.status}: {body[:200]!r}"
        try:
            outcome_codes = tuple(outcomes(json.loads(body)))
        except (ValueError, LookupError, TypeError, AttributeError):
            return f"a response that cannot be parsed: {body[:200]!r}"
        return (
            None
            if outcome_codes == self.expected
            else f"{', '.join(outcome_codes)} instead of {', '.join(self.expected)}"
        )


def authorization(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the header for the API key in LOAD_API_KEY, or no header if it is not set."""
    key = environment.get("LOAD_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def outcomes(answer: dict[str, Any]) -> list[str]:
    """Returns the best label or the error code of each image in a response."""
    return [_outcome(entry) for entry in answer.get("results", [answer])]


def _outcome(entry: dict[str, Any]) -> str:
    return str(entry["error"]["code"] if "error" in entry else entry["predictions"][0]["label"])


class Traffic:
    """All requests of the users, encoded in advance."""

    def __init__(self, model: str, digits: Sequence[Digit]) -> None:
        single_path = f"/api/v1/models/{model}/classify"
        batch_path = f"{single_path}/batch"
        self.singles = [CheckedRequest("one image", single_path, d.png, PNG, (d.label,)) for d in digits]
        self.singles_as_form = [
            CheckedRequest("one image (form)", single_path, multipart_form("file", [d.png]), FORM, (d.label,))
            for d in digits
        ]
        self.batches = [request for size in BATCH_SIZES for request in _batches(batch_path, digits, size)]
        self.bad = _bad(single_path, batch_path, digits[0])
        self.partly_bad = [_partly_bad(batch_path, digit) for digit in digits]


def _batches(path: str, digits: Sequence[Digit], size: int) -> list[CheckedRequest]:
    generator = random.Random(size)
    requests = []
    for _ in range(BATCHES_OF_EACH_SIZE):
        batch = generator.choices(digits, k=size)
        pngs, labels = [d.png for d in batch], tuple(d.label for d in batch)
        requests.append(CheckedRequest(f"{size} images (form)", path, multipart_form("files", pngs), FORM, labels))
        requests.append(CheckedRequest(f"{size} images (JSON)", path, json_batch(pngs), JSON, labels))
    return requests


def _bad(single_path: str, batch_path: str, digit: Digit) -> list[CheckedRequest]:
    unknown_model_path = single_path.replace("/models/", "/models/no-such-")
    return [
        CheckedRequest("bad: no bytes", single_path, b"", PNG, ("bad_image",), 400),
        CheckedRequest("bad: text", single_path, b"This is no image.", PNG, ("bad_image",), 400),
        CheckedRequest("bad: half an image", single_path, digit.png[: len(digit.png) // 2], PNG, ("bad_image",), 400),
        CheckedRequest("bad: TIFF", single_path, TIFF, PNG, ("unsupported_image",), 415),
        CheckedRequest("bad: 3.6 gigapixels", single_path, huge_png(60_000, 60_000), PNG, ("image_too_large",), 413),
        CheckedRequest("bad: unknown model", unknown_model_path, digit.png, PNG, ("unknown_model",), 404),
        CheckedRequest(
            "bad: unknown version", f"{single_path}?version=99999", digit.png, PNG, ("unknown_version",), 404
        ),
        CheckedRequest("bad: top_k of 0", f"{single_path}?top_k=0", digit.png, PNG, ("bad_parameter",), 422),
        CheckedRequest(
            "bad: form without a file", single_path, multipart_form("other", [digit.png]), FORM, ("bad_request",), 400
        ),
        CheckedRequest("bad: broken JSON", batch_path, b'{"images": [', JSON, ("bad_request",), 400),
        CheckedRequest("bad: batch as text", batch_path, b"a, b, c", "text/plain", ("unsupported_media_type",), 415),
    ]


def _partly_bad(path: str, digit: Digit) -> CheckedRequest:
    images = [digit.png, b"This is no image.", digit.png]
    expected = (digit.label, "bad_image", digit.label)
    return CheckedRequest("3 images, one broken", path, json_batch(images), JSON, expected)


def huge_png(width: int, height: int) -> bytes:
    """Returns a PNG of a few bytes whose header states this size."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + ihdr
        + struct.pack(">I", zlib.crc32(ihdr))
        + b"\0\0\0\0IDAT"
        + bytes(4)
    )


def multipart_form(field: str, images: Sequence[bytes]) -> bytes:
    """Encodes a form (content type FORM) with each image as a file of `field`."""
    parts = []
    for number, image in enumerate(images):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{number}.png"\r\n'
        parts.append(head.encode() + b"Content-Type: image/png\r\n\r\n" + image + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def json_batch(images: Sequence[bytes]) -> bytes:
    """Encodes a JSON body with each image in base64."""
    return json.dumps({"images": [{"data": base64.b64encode(image).decode()} for image in images]}).encode()
