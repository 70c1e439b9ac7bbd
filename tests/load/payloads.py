"""Images as request bodies of the batch endpoint: a multipart form, or JSON with base64."""

import base64
import json
from collections.abc import Sequence

BOUNDARY = "convoy-image-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"


def form(field: str, images: Sequence[bytes]) -> bytes:
    """The body of a form (content type FORM) that holds each image as a file of `field`."""
    parts = []
    for number, image in enumerate(images):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{number}.png"\r\n'
        parts.append(head.encode() + b"Content-Type: image/png\r\n\r\n" + image + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def json_batch(images: Sequence[bytes]) -> bytes:
    """The JSON body that holds each image in base64."""
    return json.dumps({"images": [{"data": base64.b64encode(image).decode()} for image in images]}).encode()
