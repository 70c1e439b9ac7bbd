"""Request bodies as files. There are many of each kind, so that they rotate and caches do not distort the results."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import IMAGE, PROBABILITIES
from tests.bench.sample_images import Samples
from tests.load import traffic

SMALL_INPUT_BYTES = 16 * 1024
JSON = "application/json"
JSON_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Body:
    """Files `stem`.0 to `stem`.<count - 1> with `images` images each. `expected` are the classes in the first file."""

    stem: Path
    count: int
    content_type: str
    images: int
    expected: tuple[int, ...]
    json_length: int | None = None
    """Length in bytes of the JSON header of a V2 binary body."""

    def file(self, number: int) -> Path:
        return Path(f"{self.stem}.{number % self.count}")

    def headers(self) -> dict[str, str]:
        extra = {} if self.json_length is None else {JSON_LENGTH: str(self.json_length)}
        return {"Content-Type": self.content_type} | extra


class Sizes(NamedTuple):
    """The number of images per batch, and the number of bodies of each kind."""

    batch: int
    bodies: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Sizes":
        """Returns smaller sizes for large inputs, because 64 large inputs as JSON would exceed the service's body
        limit."""
        return cls(64, 50) if np.prod(shape) <= SMALL_INPUT_BYTES else cls(8, 10)

    @property
    def samples(self) -> int:
        """Number of samples needed so that no image is in two batches."""
        return self.batch * self.bodies


class Bodies:
    """Writes bodies into a folder, each kind once."""

    def __init__(self, samples: Samples, folder: Path, sizes: Sizes) -> None:
        self._samples = samples
        self._folder = folder
        self._sizes = sizes
        self._bodies: dict[str, Body] = {}

    def get(self, kind: str) -> Body:
        """Returns the body of a kind in KINDS."""
        if kind not in self._bodies:
            self._bodies[kind] = self._write(kind)
        return self._bodies[kind]

    def _write(self, kind: str) -> Body:
        content_type, many, encode = KINDS[kind]
        size = self._sizes.batch if many else 1
        stem = self._folder / kind.replace(" ", "-")
        for number in range(self._sizes.bodies):
            indices = self._sample_indices(number, size)
            encoded = [self._samples.encoded[i] for i in indices]
            Path(f"{stem}.{number}").write_bytes(encode(encoded, self._samples.tensors[indices]))
        expected = tuple(self._samples.classes[i] for i in self._sample_indices(0, size))
        shape = (size, *self._samples.tensors.shape[1:])
        head = len(binary_head(shape)) if kind in BINARY_KINDS else None
        return Body(
            stem, self._sizes.bodies, content_type or _media_type(self._samples.encoded[0]), size, expected, head
        )

    def _sample_indices(self, number: int, size: int) -> list[int]:
        return [(number * size + i) % len(self._samples.encoded) for i in range(size)]


def tensor_json(tensors: NDArray[np.uint8]) -> bytes:
    """Encodes a V2 request with its data as flat JSON, as common clients do."""
    entry = {"name": IMAGE, "shape": tensors.shape, "datatype": "UINT8", "data": tensors.ravel().tolist()}
    return json.dumps({"inputs": [entry]}).encode()


def tensor_binary(tensors: NDArray[np.uint8]) -> bytes:
    """Encodes a V2 request with binary data after the JSON, which requests a response in the same form."""
    return binary_head(tensors.shape) + tensors.tobytes()


def binary_head(shape: Sequence[int]) -> bytes:
    size = {"binary_data_size": int(np.prod(shape))}
    entry = {"name": IMAGE, "shape": list(shape), "datatype": "UINT8", "parameters": size}
    return json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()


def predicted_classes(reply: bytes, json_length: str | None) -> tuple[int, ...]:
    """Returns the most probable class of each image in any server's response. Raises ValueError or LookupError."""
    answer: Any = json.loads(reply[: int(json_length)] if json_length else reply)
    if isinstance(answer, list):  # BentoML returns a batch of one
        return tuple(_top_class(predictions) for predictions in answer)
    if "outputs" in answer:
        output = next(o for o in answer["outputs"] if o["name"] == PROBABILITIES)
        raw = reply[int(json_length) :] if json_length else None
        flat = np.asarray(output["data"]) if raw is None else np.frombuffer(raw, np.float32)
        return tuple(flat.reshape(output["shape"]).argmax(1).tolist())
    return tuple(_top_class(entry["predictions"]) for entry in answer.get("results", [answer]))


def _top_class(predictions: list[dict[str, Any]]) -> int:
    return int(predictions[0].get("index", predictions[0]["label"]))


def _base64(images: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(image).decode() for image in images]


def _media_type(image: bytes) -> str:
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


Encode = Callable[[list[bytes], NDArray[np.uint8]], bytes]

# Kind: content type ("": the image's own), whether a body contains many images, and the function that encodes it.
KINDS: dict[str, tuple[str, bool, Encode]] = {
    "image": ("", False, lambda images, _: images[0]),
    "images form": (traffic.FORM, True, lambda images, _: traffic.multipart_form("files", images)),
    "images json": (JSON, True, lambda images, _: traffic.json_batch(images)),
    "v2 json": (JSON, False, lambda _, tensors: tensor_json(tensors)),
    "v2 json batch": (JSON, True, lambda _, tensors: tensor_json(tensors)),
    "v2 binary batch": ("application/octet-stream", True, lambda _, tensors: tensor_binary(tensors)),
    "base64": (JSON, False, lambda images, _: json.dumps({"image": _base64(images)[0]}).encode()),
    "base64 list": (JSON, False, lambda images, _: json.dumps({"images": _base64(images)}).encode()),
}
BINARY_KINDS = ("v2 binary batch",)
