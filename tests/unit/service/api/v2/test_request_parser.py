"""Requests of the Open Inference Protocol V2: tritonclient's bodies are parsed correctly, and invalid bodies are
rejected."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api.v2.request_parser import InferRequest, RequestedOutput, parse
from service.errors import BadTensor, ConvoyError, TooManyImages
from service.model_store.manifest import Input

MODEL_INPUT = Input(height=2, width=3, channels=1)
MAX_IMAGES = 8
PIXELS = [[[[1], [2], [3]], [[4], [5], [6]]]]
Json = dict[str, Any]
Body = tuple[bytes, int | None]

sides = st.integers(1, 5)
batches = st.builds(
    lambda n, h, w, c: (n, h, w, c), st.integers(1, MAX_IMAGES), sides, sides, st.sampled_from([1, 3])
).flatmap(lambda shape: hnp.arrays(np.uint8, shape))


def triton_input(values: NDArray[Any], datatype: str, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("image", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def triton_body(tensor: triton.InferInput, **options: Any) -> Body:
    """Returns the body that tritonclient sends."""
    body, json_length = triton.InferenceServerClient.generate_request_body([tensor], **options)
    return (body if isinstance(body, bytes) else body.encode()), json_length


def request(**changes: Any) -> Json:
    """Returns a valid request for one image, with changes."""
    return {"inputs": [{"name": "image", "shape": [1, 2, 3, 1], "datatype": "UINT8", "data": PIXELS}]} | changes


def with_input(**changes: Any) -> Json:
    tensor = request()["inputs"][0] | changes
    return request(inputs=[{name: value for name, value in tensor.items() if value is not ...}])


def read(document: Json, binary_data: bytes = b"") -> InferRequest:
    text = json.dumps(document).encode()
    return parse(text + binary_data, len(text) if binary_data else None, MODEL_INPUT, MAX_IMAGES)


@settings(deadline=None)
@given(batches, st.booleans())
def test_a_tensor_is_parsed_completely(values: NDArray[np.uint8], binary: bool) -> None:
    _, height, width, channels = values.shape
    model_input = Input(height=height, width=width, channels=channels)  # type: ignore[arg-type]
    parsed = parse(*triton_body(triton_input(values, "UINT8", binary)), model_input, MAX_IMAGES)
    assert parsed.tensor is not None
    assert parsed.tensor.dtype == np.uint8
    np.testing.assert_array_equal(parsed.tensor, values)


@settings(deadline=None)
@given(batches)
def test_flat_and_nested_lists_and_raw_requests_are_the_same(values: NDArray[np.uint8]) -> None:
    shape = values.shape
    model_input = Input(height=shape[1], width=shape[2], channels=shape[3])  # type: ignore[arg-type]
    for data in (values.tolist(), values.ravel().tolist()):
        text = json.dumps(with_input(shape=list(shape), data=data)).encode()
        np.testing.assert_array_equal(parse(text, None, model_input, MAX_IMAGES).tensor, values)  # type: ignore[arg-type]
    raw = parse(values.tobytes(), 0, model_input, MAX_IMAGES)
    np.testing.assert_array_equal(raw.tensor, values)  # type: ignore[arg-type]
    assert raw.output == RequestedOutput(binary=True)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=MAX_IMAGES))
def test_encoded_images_are_parsed_completely(images: list[bytes]) -> None:
    values = np.empty(len(images), object)
    values[:] = images
    assert parse(*triton_body(triton_input(values, "BYTES", True)), MODEL_INPUT, MAX_IMAGES).images == images
    texts = [base64.b64encode(image).decode() for image in images]
    for data, shape in ((texts, [len(texts)]), ([[text] for text in texts], [len(texts), 1])):
        assert read(with_input(datatype="BYTES", shape=shape, data=data)).images == images


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64), st.integers(1, 2**40))
def test_id_and_timeout_are_parsed(name: str, timeout_us: int) -> None:
    tensor = triton_input(np.array(PIXELS, np.uint8), "UINT8", True)
    parsed = parse(*triton_body(tensor, request_id=name, timeout=timeout_us), MODEL_INPUT, MAX_IMAGES)
    assert (parsed.id, parsed.timeout_s) == (name, timeout_us / 1e6)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("class_count", [0, 3])
def test_requested_outputs_are_parsed(binary: bool, class_count: int) -> None:
    tensor = triton_input(np.array(PIXELS, np.uint8), "UINT8", True)
    requested_output = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=class_count)
    assert parse(*triton_body(tensor, outputs=[requested_output]), MODEL_INPUT, MAX_IMAGES).output == RequestedOutput(
        binary, class_count
    )


def test_a_parameter_of_an_output_overrides_that_of_the_request() -> None:
    all_binary = {"binary_data_output": True}
    assert read(request(parameters=all_binary)).output == RequestedOutput(binary=True)
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    assert read(request(parameters=all_binary, outputs=outputs)).output == RequestedOutput(binary=False)


def test_null_is_as_good_as_nothing() -> None:
    nulls = {"id": None, "parameters": None, "outputs": None}
    assert read(request(**nulls)).output == RequestedOutput()
    parameters = {"binary_data": None, "classification": None}
    assert read(request(outputs=[{"name": "probabilities", "parameters": parameters}])).output == RequestedOutput()


def test_unknown_fields_are_ignored() -> None:
    assert read(request(parameters={"priority": 1, "sequence_id": 7}, more={})).tensor is not None


def output(**parameters: Any) -> Json:
    return request(outputs=[{"name": "probabilities", "parameters": parameters}])


BINARY = {"binary_data_size": 6}
BAD_REQUESTS: dict[str, tuple[Json, str]] = {
    "an endless priority": (request(parameters={"priority": "a" * 10**6}), r"^`priority` is a{1,99}\.\.\.; it must be"),
    "no inputs": ({}, "`inputs` must be a list of one tensor"),
    "empty inputs": (request(inputs=[]), "`inputs` must be a list of one tensor"),
    "two inputs": (request(inputs=request()["inputs"] * 2), "`inputs` must be a list of one tensor"),
    "inputs of numbers": (request(inputs=[1]), "`inputs` must be a list of one tensor"),
    "another input": (with_input(name="pixels"), "no input 'pixels'; the model takes 'image'"),
    "nameless input": (with_input(name=...), "no input 'null'"),
    "no shape": (with_input(shape=...), "`shape` of input 'image' must be a list of whole numbers"),
    "a text in the shape": (with_input(shape=[1, "2"]), "must be a list of whole numbers"),
    "a truth in the shape": (with_input(shape=[True, 2, 3, 1]), "must be a list of whole numbers"),
    "a negative side": (with_input(shape=[-1, 2, 3, 1]), "must be a list of whole numbers"),
    "a broken side": (with_input(shape=[1, 2.0, 3, 1]), "must be a list of whole numbers"),
    "many sides": (with_input(shape=[1] * 9), "must be a list of whole numbers"),
    "another shape": (with_input(shape=[1, 3, 2, 1]), r"shape \[1, 3, 2, 1\]; it must be \[-1, 2, 3, 1\]"),
    "no batch dimension": (with_input(shape=[2, 3, 1]), r"it must be \[-1, 2, 3, 1\]"),
    "no image": (with_input(shape=[0, 2, 3, 1], data=[]), "at least one image"),
    "floats": (with_input(datatype="FP32"), "datatype FP32; it must be UINT8 or BYTES"),
    "half floats": (with_input(datatype="FP16", data=..., parameters=BINARY), "datatype FP16; it must be UINT8"),
    "no datatype": (with_input(datatype=...), "datatype null; it must be UINT8 or BYTES"),
    "no data": (with_input(data=...), "neither a list `data` nor binary_data_size"),
    "data of a text": (with_input(data="123456"), "neither a list `data` nor binary_data_size"),
    "too few values": (with_input(data=[1, 2]), "has 2 values; its shape .* needs 6"),
    "too many values": (with_input(data=[0] * 7), "has 7 values; its shape .* needs 6"),
    "a value too large": (
        with_input(data=[256] * 6),
        "`data` of input 'image' may contain only whole numbers from 0 to 255",
    ),
    "values with a point": (with_input(data=[1.0] * 6), "whole numbers from 0 to 255"),
    "nested otherwise": (with_input(data=[[1, 2, 3], [4, 5, 6]]), "nested, but not in the shape"),
    "more bytes than there are": (
        with_input(data=..., parameters=BINARY),
        "binary_data_size is 6, but 0 bytes are left",
    ),
    "a size of a text": (with_input(parameters={"binary_data_size": "6"}), "binary_data_size is 6, but 0 bytes"),
    "a negative size": (with_input(parameters={"binary_data_size": -1}), "binary_data_size is -1"),
    "parameters in a list": (request(parameters=[]), "`parameters` of the request must be an object"),
    "input parameters in a list": (with_input(parameters=[]), "`parameters` of input 'image' must be an object"),
    "shared memory": (with_input(parameters={"shared_memory_region": "x"}), "shared memory"),
    "shared memory for the answer": (output(shared_memory_region="x"), "shared memory"),
    "another output": (request(outputs=[{"name": "logits"}]), "exactly one output, 'probabilities'"),
    "the output twice": (request(outputs=[{"name": "probabilities"}] * 2), "exactly one output"),
    "outputs in an object": (request(outputs={}), "exactly one output"),
    "outputs of texts": (request(outputs=["probabilities"]), "exactly one output"),
    "classes by word": (output(classification="all"), "`classification` is all; it must be a whole number"),
    "classes below nought": (output(classification=-1), "`classification` is -1"),
    "classes by truth": (output(classification=True), "`classification` is True"),
    "binary by word": (output(binary_data="false"), "`binary_data` is false; it must be true or false"),
    "all binary by number": (request(parameters={"binary_data_output": 1}), "`binary_data_output` is 1"),
    "an id of numbers": (request(id=1), "`id` must be a string of at most 256"),
    "a long id": (request(id="x" * 257), "`id` must be a string of at most 256"),
    "a priority below 0": (
        request(parameters={"priority": -1}),
        "`priority` is -1; it must be a whole number of at least 0. Requests with a priority above 1 run",
    ),
    "a timeout by word": (request(parameters={"timeout": "1s"}), "`timeout` is 1s; it must be a whole number of micro"),
    "a timeout before now": (request(parameters={"timeout": -1}), "`timeout` is -1"),
    "images of another shape": (with_input(datatype="BYTES", shape=[1, 2], data=[""]), r"the shape must be \[-1\]"),
    "no images": (with_input(datatype="BYTES", shape=[0], data=[]), "at least one image"),
    "fewer images": (with_input(datatype="BYTES", shape=[2], data=["AAAA"]), "has 1 images; its shape needs 2"),
    "no base64": (with_input(datatype="BYTES", shape=[2], data=["AAAA", "!"]), "Element 1 of `data` .* base64"),
    "images of numbers": (with_input(datatype="BYTES", shape=[1], data=[7]), "Element 0 of `data` .* base64"),
    "two images in one": (with_input(datatype="BYTES", shape=[1], data=[["AAAA", "AAAA"]]), "Element 0 .* base64"),
}


@pytest.mark.parametrize(("document", "pattern"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_every_error_is_reported(document: Json, pattern: str) -> None:
    with pytest.raises(BadTensor, match=pattern) as raised:
        read(document)
    assert raised.value.message.endswith(".")
    assert len(raised.value.message) < 300


def with_binary_images(size: int, shape: list[int]) -> Json:
    return with_input(datatype="BYTES", shape=shape, data=..., parameters={"binary_data_size": size})


BAD_BINARY_DATA: dict[str, tuple[Json, bytes, str]] = {
    "bytes to spare": (with_input(data=..., parameters=BINARY), bytes(7), "1 bytes are left in the body"),
    "bytes beside data": (request(), bytes(6), "6 bytes are left in the body"),
    "too few bytes": (with_input(data=..., parameters=BINARY), bytes(5), "binary_data_size is 6, but 5 bytes"),
    "fewer bytes than the shape": (
        with_input(data=..., parameters={"binary_data_size": 5}), bytes(5), "has 5 values; its shape .* needs 6"
    ),
    "an element past the end": (with_binary_images(5, [1]), b"\x02\0\0\0a", "element 0 is longer than the remaining"),
    "half a length": (with_binary_images(7, [2]), b"\x01\0\0\0a\1\0", "element 1 is longer than the remaining"),
    "fewer elements": (with_binary_images(5, [2]), b"\x01\0\0\0a", "does not contain 2 elements"),
    "more elements": (with_binary_images(10, [1]), b"\x01\0\0\0a" * 2, "does not contain 1 elements"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "binary_data", "pattern"), BAD_BINARY_DATA.values(), ids=BAD_BINARY_DATA)
def test_every_error_in_raw_tensors_is_reported(document: Json, binary_data: bytes, pattern: str) -> None:
    with pytest.raises(BadTensor, match=pattern):
        read(document, binary_data)


def test_a_json_length_past_the_body_is_reported() -> None:
    with pytest.raises(BadTensor, match="Inference-Header-Content-Length is 99; the body has 2 bytes"):
        parse(b"{}", 99, MODEL_INPUT, MAX_IMAGES)


@pytest.mark.parametrize("size", [0, 1, 5, 7])
def test_a_raw_request_with_a_partial_image_is_reported(size: int) -> None:
    with pytest.raises(
        BadTensor, match=rf"raw body has {size} bytes; it must consist of images of 6 bytes each, of shape \[2, 3, 1\]"
    ):
        parse(bytes(size), 0, MODEL_INPUT, MAX_IMAGES)


def nine_raw() -> InferRequest:
    return parse(bytes(6 * 9), 0, MODEL_INPUT, MAX_IMAGES)


def nine_in_json() -> InferRequest:
    return read(with_input(shape=[9, 2, 3, 1], data=[0] * 54))


def nine_images() -> InferRequest:
    return read(with_binary_images(45, [9]), b"\x01\0\0\0a" * 9)


@pytest.mark.parametrize("parse_nine", [nine_raw, nine_in_json, nine_images])
def test_more_images_than_the_limit_are_rejected_before_parsing(parse_nine: Callable[[], InferRequest]) -> None:
    with pytest.raises(TooManyImages, match="The request has 9 images, and the queue holds at most 8"):
        parse_nine()


def test_a_list_longer_than_simdjson_can_count_is_rejected() -> None:
    """simdjson's `as_list` would write 2**24 elements past the end of a list of 2**24 - 1."""
    sides = b"1," * 2**24 + b"1"
    with pytest.raises(BadTensor, match="`shape` of input 'image' must be a list of whole numbers"):
        parse(b'{"inputs":[{"name":"image","shape":[' + sides + b"]}]}", None, MODEL_INPUT, MAX_IMAGES)


def error_message(read_request: Callable[[], InferRequest]) -> str:
    """Returns the error message, or a full stop if there is no error. Raises errors that are not a ConvoyError."""
    try:
        read_request()
    except ConvoyError as error:
        return error.message
    return "."


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
REQUEST_FIELDS = ["id", "parameters", "inputs", "outputs"]
INPUT_FIELDS = ["name", "shape", "datatype", "data", "parameters"]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(REQUEST_FIELDS), json_values),
    st.dictionaries(st.sampled_from(INPUT_FIELDS), json_values),
)
def test_any_json_in_any_field_is_read_or_rejected(outer: Json, inner: Json) -> None:
    for document in (request(**outer), with_input(**inner), with_input(**{"datatype": "BYTES"} | inner)):
        assert len(error_message(lambda: read(document))) < 400  # noqa: B023


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.none() | st.integers(0, 70))
def test_any_bytes_are_read_or_rejected(body: bytes, json_length: int | None) -> None:
    assert error_message(lambda: parse(body, json_length, MODEL_INPUT, MAX_IMAGES)).endswith(".")


def test_binary_data_without_the_length_of_the_json_is_reported() -> None:
    body, json_length = triton_body(triton_input(np.zeros((1, 2, 3, 1), np.uint8), "UINT8", binary=True))
    assert parse(body, json_length, MODEL_INPUT, MAX_IMAGES).tensor is not None
    with pytest.raises(BadTensor, match="Inference-Header-Content-Length is missing"):
        parse(body, None, MODEL_INPUT, MAX_IMAGES)


def test_a_large_body_without_the_length_of_the_json_is_reported() -> None:
    tensor = triton_input(np.full((1, 600, 600, 1), ord('"'), np.uint8), "UINT8", binary=True)
    with pytest.raises(BadTensor, match="Inference-Header-Content-Length is missing"):
        parse(triton_body(tensor)[0], None, Input(height=600, width=600, channels=1), MAX_IMAGES)


def test_a_raw_tensor_without_its_header_is_reported() -> None:
    with pytest.raises(BadTensor, match="has no Inference-Header-Content-Length") as raised:
        parse(bytes(6), None, MODEL_INPUT, MAX_IMAGES)
    assert "Inference-Header-Content-Length: 0" in raised.value.hint
