"""Requests of TensorFlow Serving's REST API: its formats are parsed correctly, and other formats are rejected with a
reason."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api.v1.request_parser import PredictRequest, parse
from service.errors import BadTensor, ConvoyError, TooManyImages
from service.model_store.manifest import Input

MODEL_INPUT = Input(height=2, width=3, channels=1)
MAX_IMAGES = 8
PIXELS = [[[1], [2], [3]], [[4], [5], [6]]]
Json = dict[str, Any]

sides = st.integers(1, 5)
shapes = st.tuples(st.integers(1, MAX_IMAGES), sides, sides, st.sampled_from([1, 3]))
batches = shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape))
image_lists = st.lists(st.binary(max_size=40), min_size=1, max_size=MAX_IMAGES)


def read(document: object, model_input: Input = MODEL_INPUT) -> PredictRequest:
    return parse(json.dumps(document).encode(), model_input, MAX_IMAGES)


def forms(values: list[Any]) -> list[Json]:
    """Returns the same images in every format that TensorFlow Serving accepts."""
    return [
        {"instances": values},
        {"instances": [{"image": value} for value in values]},
        {"inputs": values},
        {"inputs": {"image": values}},
    ]


@settings(deadline=None)
@given(batches)
def test_tensors_are_parsed_completely_in_every_form(values: NDArray[np.uint8]) -> None:
    _, height, width, channels = values.shape
    model_input = Input(height=height, width=width, channels=channels)  # type: ignore[arg-type]
    for form in forms(values.tolist()):
        parsed = read(form, model_input)
        assert parsed.by_row == ("instances" in form)
        assert parsed.tensor is not None
        assert parsed.tensor.dtype == np.uint8
        np.testing.assert_array_equal(parsed.tensor, values)


@settings(deadline=None)
@given(image_lists)
def test_images_are_parsed_completely_in_every_form(images: list[bytes]) -> None:
    for form in forms([{"b64": base64.b64encode(image).decode()} for image in images]):
        assert read(form).images == images


@pytest.mark.parametrize("name", [None, "", "serving_default"])
def test_the_only_signature_may_be_named(name: str | None) -> None:
    assert read({"instances": [PIXELS], "signature_name": name}).tensor is not None


def test_top_k_is_parsed() -> None:
    assert read({"instances": [PIXELS]}).top_k == 0
    assert read({"instances": [PIXELS], "parameters": {"top_k": 3}}).top_k == 3


def test_unknown_fields_beside_the_images_are_ignored() -> None:
    assert read({"instances": [PIXELS], "id": "7", "model_spec": {"name": "x"}}).tensor is not None


def test_base64_is_read_as_tensorflow_serving_reads_it() -> None:
    assert read({"instances": [{"b64": "SW1h\r\n Z2\tUh\n"}, {"b64": "SW1hZ2U"}]}).images == [b"Image!", b"Image"]


def rows(**changes: Any) -> Json:
    return {"instances": [PIXELS]} | changes


BAD_REQUESTS: dict[str, tuple[object, str]] = {
    "a list": ([PIXELS], "not a JSON object"),
    "neither": ({}, "either `instances` or `inputs`"),
    "both": (rows(inputs=[PIXELS]), "either `instances` or `inputs`"),
    "another signature": (rows(signature_name="classify"), "'classify'; the only signature is 'serving_default'"),
    "a signature of numbers": (rows(signature_name=1), "Unknown signature '1'"),
    "parameters in a list": (rows(parameters=[]), "`parameters` may contain only `top_k`"),
    "another parameter": (rows(parameters={"topk": 1}), "`parameters` may contain only `top_k`"),
    "top_k by word": (rows(parameters={"top_k": "all"}), "`top_k` is all; it must be a whole number"),
    "top_k below nought": (rows(parameters={"top_k": -1}), "`top_k` is -1"),
    "top_k by truth": (rows(parameters={"top_k": True}), "`top_k` is True"),
    "no list": ({"instances": 1}, "must be a list of at least one image"),
    "one image alone": ({"inputs": {"b64": "AAAA"}}, "must be a list of at least one image"),
    "no image": ({"instances": []}, "must be a list of at least one image"),
    "no named image": ({"inputs": {}}, "must be a list of at least one image"),
    "another column": ({"inputs": {"x": [PIXELS]}}, "no input 'x'; the model takes 'image'"),
    "one column too many": ({"inputs": {"image": [PIXELS], "x": []}}, "no input 'x'"),
    "another input": ({"instances": [{"x": PIXELS}]}, "no input 'x'; the model takes 'image'"),
    "an image twice named": (
        {"instances": [{"image": {"image": PIXELS}}]},
        "Image 0 must be a nested list of pixels, or",
    ),
    "a nameless image": ({"instances": [{}]}, "Image 0 must be a nested list of pixels"),
    "a number for an image": ({"instances": [PIXELS, 1]}, "Image 1 must be a nested list of pixels"),
    "a text for an image": ({"instances": ["AAAA"]}, "Image 0 must be a nested list of pixels"),
    "no base64": (
        {"instances": [{"b64": "AAAA"}, {"b64": "!"}]},
        "Image 1 is not an image in base64: character '!' at position 0.",
    ),
    "base64 of a number": ({"instances": [{"b64": 1}]}, "Image 0 is not an image in base64, but 1."),
    "more beside base64": ({"instances": [{"b64": "AAAA", "x": 1}]}, "Image 0 must be a nested list of pixels, or"),
    "an array among images": (
        {"instances": [{"b64": "AAAA"}, PIXELS]},
        "Image 1 is not an image in base64, but other images are",
    ),
    "an image among arrays": (
        {"instances": [PIXELS, {"b64": "AAAA"}]},
        "Image 1 must be a nested list of pixels, or all",
    ),
    "another shape": ({"instances": [[[1, 2, 3], [4, 5, 6]]]}, r"Image 0 has 6 values; .* in the shape \[2, 3, 1\]"),
    "a flat image": ({"instances": [[1, 2, 3, 4, 5, 6]]}, "nested in the shape"),
    "ragged": ({"instances": [PIXELS, [[[1], [2]], [[3], [4], [5], [6]]]]}, "Image 1 has 6 values"),
    "too few": ({"instances": [[[[1], [2], [3]]]]}, "Image 0 has 3 values"),
    "a value too large": ({"instances": [[[[256], [2], [3]], [[4], [5], [6]]]]}, "Image 0 .* from 0 to 255"),
    "values with a point": ({"instances": [PIXELS, [[[0.5]]]]}, "Image 1 may contain only whole numbers from 0 to 255"),
    "values of text": ({"instances": [[[["1"]]]]}, "Image 0 may contain only whole numbers"),
}


@pytest.mark.parametrize(("document", "pattern"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_every_error_is_reported(document: object, pattern: str) -> None:
    with pytest.raises(BadTensor, match=pattern) as raised:
        read(document)
    assert raised.value.message.endswith(".")
    assert len(raised.value.message) < 300


@pytest.mark.parametrize("image", [PIXELS, {"b64": "AAAA"}, {}, 1])
def test_more_images_than_the_limit_are_rejected_before_parsing(image: object) -> None:
    with pytest.raises(TooManyImages, match="The request has 9 images, and the queue holds at most 8"):
        read({"instances": [image] * 9})


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [PIXELS], "parameters": "MANY"},
        {"instances": ["MANY"]},
        {"inputs": "MANY"},
        "MANY",
    ],
)
def test_an_object_with_too_many_members_is_rejected_before_parsing(document: object) -> None:
    many = b"{" + b",".join([b'"image":0'] * 1001) + b"}"
    with pytest.raises(BadTensor, match="An object in the JSON has 1001 members; the maximum is 1000"):
        parse(json.dumps(document).encode().replace(b'"MANY"', many), MODEL_INPUT, MAX_IMAGES)


def error_message(read_request: Callable[[], PredictRequest]) -> str:
    """Returns the error message, or a full stop if there is no error. Raises errors that are not a ConvoyError."""
    try:
        read_request()
    except ConvoyError as error:
        return error.message
    return "."


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["image", "b64", "x"]), inner, max_size=2)
    ),
    max_leaves=8,
)
REQUEST_FIELDS = ["instances", "inputs", "signature_name", "parameters", "x"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(REQUEST_FIELDS), json_values))
def test_any_json_is_read_or_rejected(document: Json) -> None:
    assert len(error_message(lambda: read(document))) < 300


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_rejected(body: bytes) -> None:
    assert error_message(lambda: parse(body, MODEL_INPUT, MAX_IMAGES)).endswith(".")
