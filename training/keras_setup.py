"""All that is said to Keras' backend directly: its log level, its seeds, and its promise to compute alike every time.

Importing this module imports Keras; nothing else in the training half may name a backend, except the export.
"""

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what C++ writes to the error stream, past Python's; exceptions are not hidden."""
    sys.stderr.flush()
    saved_fd, null_fd = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 2)
    try:
        yield
    finally:
        os.dup2(saved_fd, 2)
        os.close(saved_fd)
        os.close(null_fd)


# TensorFlow reads the level when it is imported, but logs about processor and missing GPU before it knows it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _silent_stderr():
    import keras

DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
RECORDED_PACKAGES = ("keras", "tensorflow", "jax", "numpy", "onnx", "tf2onnx", "onnxruntime")


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and Keras, so that the same run gives the same weights, bit by bit.

    On as many cores of the same machine, that is: with others the sums come in another order. TensorFlow is asked for
    deterministic kernels too (no cost on the CPU, measured); JAX's are so by themselves.
    """
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Networks built within compute in "float32" or "bfloat16"; their weights are float32 in either case."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(DTYPE_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that a result may depend on."""
    versions = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
