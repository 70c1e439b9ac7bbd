"""Makes copies of Keras networks that compute in another precision with the same weights.

The float64 copy is the reference of the parity check. Mixed-precision networks are exported as a float32 copy.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import keras

Dtype = Literal["float32", "float64"]
FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")


def copy_with_dtype(network: keras.Model, dtype: Dtype) -> keras.Model:
    """Returns the network with every layer in `dtype`. Exceptions from layers that cannot be copied are not caught."""
    config = _replace_dtypes(keras.saving.serialize_keras_object(network), dtype)
    with _default_dtype(dtype):
        copy = keras.saving.deserialize_keras_object(config, safe_mode=False)
    copy.set_weights(network.get_weights())
    return copy


def float64_copy(network: keras.Model) -> keras.Model | None:
    """Returns the network in float64; None if a layer, such as a custom one, cannot be copied or run in float64."""
    if any(isinstance(layer, keras.layers.TFSMLayer) for layer in all_layers(network)):
        return None  # a TensorFlow graph, whose precision is fixed
    try:
        copy = copy_with_dtype(network, "float64")
    except Exception:  # custom layers can raise any exception
        return None
    if "channels_first" in {getattr(layer, "data_format", None) for layer in all_layers(copy)}:
        # TensorFlow's CPU kernels do not support this convolution in float64, but its compiler does.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy.jit_compile = True
        return copy if copy.jit_compile else None  # not available if operations must be deterministic
    return copy


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a network and of nested networks."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def _replace_dtypes(config: Any, dtype: Dtype) -> Any:
    """Returns a serialized object with all floating-point dtypes and dtype policies replaced."""
    if isinstance(config, list | tuple):
        return type(config)(_replace_dtypes(value, dtype) for value in config)
    if not isinstance(config, dict):
        return config
    return {
        key: dtype if key == "dtype" and _is_float(value) else _replace_dtypes(value, dtype)
        for key, value in config.items()
    }


def _is_float(value: Any) -> bool:
    """Returns whether the value of a `dtype` field is a floating-point type or a policy."""
    return value in FLOAT_DTYPES or (isinstance(value, dict) and "DTypePolicy" in str(value.get("class_name")))


@contextlib.contextmanager
def _default_dtype(dtype: Dtype) -> Iterator[None]:
    """Within the context, `dtype` is the default of layers that are created without a dtype, such as layers inside
    custom layers."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
