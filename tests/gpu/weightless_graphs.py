"""Graphs without their weights: small enough for the repository, and filled with random numbers where they are run.

Every large tensor keeps its shape, mean and deviation. So a filled graph computes what a fresh network would.
"""

import hashlib
import json

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

LARGE = 1024
"""Values; smaller tensors (shapes, biases) are kept as they are."""
SEED = 18


def strip(model: onnx.ModelProto) -> None:
    """Takes the values out of all large float tensors, in place."""
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LARGE:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.doc_string = json.dumps({"mean": values.mean(), "std": values.std()})
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)


def fill(model: onnx.ModelProto) -> None:
    """Gives a stripped model values, in place: the same ones everywhere, drawn by each tensor's name."""
    for tensor in model.graph.initializer:
        if not tensor.doc_string:
            continue
        told = json.loads(tensor.doc_string)
        random = np.random.default_rng([SEED, *hashlib.sha256(tensor.name.encode()).digest()[:8]])
        values = random.standard_normal(tuple(tensor.dims), np.float32) * np.float32(told["std"])
        tensor.CopyFrom(numpy_helper.from_array(values + np.float32(told["mean"]), tensor.name))
