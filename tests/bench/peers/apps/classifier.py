"""The model in every peer's application: one graph, one thread per run, decoding with Pillow.

Runs in the peers' environments, which contain neither Convoy nor its dependencies.
"""

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

MODEL = os.environ["PEER_MODEL"]
MAX_BATCH = int(os.environ["PEER_MAX_BATCH"])
INSTANCES = int(os.environ["PEER_INSTANCES"])
PORT = int(os.environ["PEER_PORT"])
PROVIDER = os.environ.get("PEER_PROVIDER", "CPUExecutionProvider")
TOP_K = 5


def open_session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(MODEL, options, providers=[PROVIDER])


class Net:
    """Maps uint8 (n, height, width, channels) to probabilities (n, classes)."""

    def __init__(self) -> None:
        self._session = open_session()
        self._channels = self._session.get_inputs()[0].shape[3]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(["probabilities"], {"image": batch})[0]

    def decode(self, encoded: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(encoded)).convert("L" if self._channels == 1 else "RGB")
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def best(row: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-row)[:TOP_K]
    return [{"label": str(int(index)), "probability": float(row[index])} for index in order]
