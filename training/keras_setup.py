"""Configures Keras' backend: log level, seeds and deterministic computation.

Importing this module imports Keras. Other modules import a backend only where a feature needs it: export, fused batch
normalization, data parallelism.
"""

import contextlib
import importlib.metadata
import logging
import os
import platform
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides the output that C++ code writes directly to the error stream. Exceptions are not hidden."""
    sys.stderr.flush()
    saved_fd, null_fd = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 2)
    try:
        yield
    finally:
        os.dup2(saved_fd, 2)
        os.close(saved_fd)
        os.close(null_fd)


# TensorFlow reads the log level when it is imported, but logs messages about the processor and a missing GPU before.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _silent_stderr():
    import keras

# TensorFlow warns when several networks run one after the other, which exports and checks do on purpose.
logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())

DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
RECORDED_PACKAGES = ("keras", "tensorflow", "jax", "numpy", "onnx", "tf2onnx", "onnxruntime")


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and Keras, so that repeating a run gives exactly the same weights.

    The weights are the same on the same machine with the same number of cores; otherwise sums are computed in another
    order. TensorFlow's deterministic kernels are enabled as well (without measurable cost on the CPU). JAX's kernels
    are always deterministic.
    """
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Within the context, networks are built to compute in "float32" or "bfloat16"; weights are always float32."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(DTYPE_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the installed libraries that can influence a result."""
    versions = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
