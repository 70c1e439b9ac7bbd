"""Arrays and strings that are cut out of a large document and parsed in slices have the same values as in a small
document."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api.http import json_arrays, large_json
from service.api.http.base64_text import decode_base64
from service.api.http.json_arrays import flat_pixels, has_shape, parse_object
from service.api.native import batch_request
from service.api.v1 import request_parser as v1
from service.api.v2 import request_parser as v2
from service.errors import BadTensor, ConvoyError, TooManyImages
from service.model_store.manifest import Input

MAX_IMAGES = 8
MODEL_INPUT = Input(height=3, width=4, channels=3)
SHAPE = (3, 4, 3)
MIN_ARRAY_BYTES = 80  # longer than a shape in any layout
MIN_TEXT_BYTES = 20  # longer than the name of a field

batches = st.integers(1, MAX_IMAGES).flatmap(lambda count: hnp.arrays(np.uint8, (count, *SHAPE)))
image_lists = st.lists(st.binary(min_size=20, max_size=60), min_size=1, max_size=MAX_IMAGES)
layouts = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"indent": "\t"}])
slice_sizes = st.sampled_from([1, 4, 21, 1000])


@contextmanager
def all_is_large(slice_bytes: int) -> Iterator[None]:
    """Within the context, arrays and strings of more than a few bytes are cut out and parsed in small slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "MAX_INLINE_JSON_BYTES", -1)
        patch.setattr(large_json, "SLICE_BYTES", slice_bytes)
        patch.setattr(large_json, "MIN_ARRAY_BYTES", MIN_ARRAY_BYTES)
        patch.setattr(large_json, "MIN_TEXT_BYTES", MIN_TEXT_BYTES)
        yield


def v1_documents(values: list[Any]) -> list[Any]:
    return [
        {"instances": values},
        {"instances": [{"image": value} for value in values], "parameters": {"top_k": 2}},
        {"signature_name": "serving_default", "inputs": values},
        {"inputs": {"image": values}, "signature_name": None},
    ]


def v2_document(shape: tuple[int, ...], datatype: str, data: object) -> dict[str, Any]:
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "data": data}
    return {"id": "7", "inputs": [tensor], "outputs": [{"name": "probabilities"}]}


@settings(deadline=None, max_examples=40)
@given(batches, layouts, slice_sizes)
def test_tensors_are_the_same_in_every_form(
    values: NDArray[np.uint8], layout: dict[str, Any], slice_bytes: int
) -> None:
    with all_is_large(slice_bytes):
        for document in v1_documents(values.tolist()):
            request = v1.parse(json.dumps(document, **layout).encode(), MODEL_INPUT, MAX_IMAGES)
            np.testing.assert_array_equal(request.tensor, values)
        for data in (values.tolist(), values.ravel().tolist()):
            body = json.dumps(v2_document(values.shape, "UINT8", data), **layout).encode()
            infer_request = v2.parse(body, None, MODEL_INPUT, MAX_IMAGES)
            np.testing.assert_array_equal(infer_request.tensor, values)
            assert infer_request.id == "7"


@settings(deadline=None, max_examples=40)
@given(image_lists, layouts, slice_sizes, st.booleans())
def test_encoded_images_are_the_same_in_every_form(
    images: list[bytes], layout: dict[str, Any], slice_bytes: int, escape_slashes: bool
) -> None:
    def dump(document: object) -> bytes:
        text = json.dumps(document, **layout)
        return (text.replace("/", "\\/") if escape_slashes else text).encode()

    texts = [base64.b64encode(image).decode() for image in images]
    with all_is_large(slice_bytes):
        for document in v1_documents([{"b64": text} for text in texts]):
            assert v1.parse(dump(document), MODEL_INPUT, MAX_IMAGES).images == images
        document = v2_document((len(images),), "BYTES", texts)
        assert v2.parse(dump(document), None, MODEL_INPUT, MAX_IMAGES).images == images
        document = {"images": [{"data": text, "id": f'"{at}\\'} for at, text in enumerate(texts)]}
        parsed = batch_request.parse(dump(document), MAX_IMAGES)
        assert parsed == [(f'"{at}\\', image) for at, image in enumerate(images)]


def outcome(parse: Callable[[], Any]) -> Any:
    """Returns the parsed value, or None for a ConvoyError. Raises any other error."""
    try:
        parsed = parse()
    except ConvoyError:
        return None
    if isinstance(parsed, list):
        return [(name, image if isinstance(image, bytes) else None) for name, image in parsed]
    return None if parsed.tensor is None else parsed.tensor.tolist(), parsed.images


REQUESTS: dict[str, tuple[Callable[[bytes], Any], object]] = {
    "v1": (lambda body: v1.parse(body, MODEL_INPUT, MAX_IMAGES), {"instances": np.ones((2, *SHAPE), int).tolist()}),
    "v2 flat": (
        lambda body: v2.parse(body, None, MODEL_INPUT, MAX_IMAGES),
        {"inputs": [{"data": [1] * 36, "name": "image", "shape": [1, *SHAPE], "datatype": "UINT8"}]},
    ),
    "v2 nested": (
        lambda body: v2.parse(body, None, MODEL_INPUT, MAX_IMAGES),
        {"inputs": [v2_document((1, *SHAPE), "UINT8", np.ones((1, *SHAPE), int).tolist())["inputs"][0]]},
    ),
    "batch": (lambda body: batch_request.parse(body, MAX_IMAGES), {"images": [{"data": "QUJD" * 8}, {"data": "QQ=="}]}),
}
FRAGMENTS = [
    b"[",
    b"]",
    b",",
    b"1",
    b" ",
    b"{",
    b"}",
    b'"',
    b"\\",
    b":",
    b"-",
    b".5",
    b"300",
    b"=",
    b"\xff",
    b"\n",
    b"\\u003d",
    b"[]",
    b"{}",
]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(REQUESTS)),
    st.floats(0, 1),
    st.integers(0, 2),
    st.sampled_from([b"", *FRAGMENTS]),
    st.booleans(),
    slice_sizes,
)
def test_a_damaged_document_is_rejected_where_a_small_one_is(
    kind: str, where: float, removed: int, inserted: bytes, compact: bool, slice_bytes: int
) -> None:
    parse, document = REQUESTS[kind]
    body = json.dumps(document, separators=(",", ":") if compact else None).encode()
    at = round(where * len(body))
    damaged = body[:at] + inserted + body[at + removed :]
    expected = outcome(lambda: parse(damaged))
    with all_is_large(slice_bytes):
        result = outcome(lambda: parse(damaged))
    if kind == "batch" and expected is None and result is not None:  # an invalid string affects only its own image
        assert None in [image for _, image in result]
    else:
        assert result == expected


def large(text: bytes) -> Any:
    """Parses `text` within a document that is large enough to be cut."""
    document = parse_object(b'{"a":' + text + b',"b":"' + b"x" * json_arrays.MAX_INLINE_JSON_BYTES + b'"}')
    return document.value(document.root["a"])


NUMBERS = b",".join([b"12"] * 1000)


@pytest.mark.parametrize("text", [b"[%b]", b"[ %b ]", b"[[%b]]", b"\n\t[%b]\r\n", b"[[%b],[1]]", b"[%b,1]"])
def test_long_arrays_are_cut_out(text: bytes) -> None:
    values = large(text % NUMBERS)
    assert isinstance(values, large_json.LargeArray)
    assert values.is_nested is (text.count(b"[") > 1)
    assert flat_pixels(values, "`a`").tolist()[:1000] == [12] * 1000


@pytest.mark.parametrize("text", [b'[%b,"x"]', b"[%b,{}]", b"[{},%b]", b'{"c":1,"d":{}}', b"[1,2,3]"])
def test_other_arrays_are_not_cut_out(text: bytes) -> None:
    assert not isinstance(large(text % NUMBERS if b"%b" in text else text), large_json.LargeArray)


@pytest.mark.parametrize(
    "text",
    [b"[%b,256]", b"[%b,-1]", b"[%b,1.0]", b"[%b,true]", b"[%b,,1]", b"[,%b]", b"[%b,]", b"[%b 1]", b"[%b,1e999]"],
)
def test_only_numbers_from_0_to_255_are_pixels(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for slice_bytes in (large_json.SLICE_BYTES, len(NUMBERS)):
        monkeypatch.setattr(large_json, "SLICE_BYTES", slice_bytes)
        with pytest.raises(BadTensor, match=r"^`a` may contain only whole numbers from 0 to 255"):
            flat_pixels(large(text % NUMBERS), "`a`")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (b"[[%b],[%b]]", True),
        (b"[ [%b] ,\n[%b]]", True),
        (b"[[%b],1[%b]]", False),
        (b"[[%b]1,[%b]]", False),
        (b"[[%b,%b]]", False),
        (b"[[%b,[%b]]]", False),
        (b"[[%b][%b]]", False),
    ],
)
def test_brackets_must_match_the_shape(text: bytes, fits: bool) -> None:
    assert has_shape(large(text.replace(b"%b", NUMBERS)), (2, 1000)) is fits


def test_invalid_base64_across_slices_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with all_is_large(8):
        assert decode_base64(large(b'"' + b"QUJD" * 10 + b'QQ=="')) == b"ABC" * 10 + b"A"
        for bad in (b"QUI=" * 10, b"QUJDQUJDQQ==" * 3, b"QUJD" * 10 + b"Q", b"QUJD" * 10 + b"\\b", b"\xff" * 40):
            with pytest.raises(ValueError, match=r"."):
                decode_base64(large(b'"' + bad + b'"'))


def filler(text: bytes, count: int) -> bytes:
    return b'{"a":[' + b",".join([text] * count) + b"]}"


def test_short_strings_are_skipped_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, the strings of 300 bytes of gzip would take 100 ms."""
    positions, array_span = list[int](), large_json._array_span
    monkeypatch.setattr(large_json, "_array_span", lambda *args: positions.append(args[1]) or array_span(*args))
    for text in (b'""', b'"\\""', b'"' + b"\\\\" * 64 + b'"', b'""' + b" " * 40):
        body = filler(text, 20_000)
        assert large_json.cut_out(body) == (body, {})
    assert len(positions) < 20


@given(st.lists(st.text(st.sampled_from('\\"a,:[] '), max_size=40)), st.sampled_from([1, 2, 7, 1000]))
def test_strings_with_escapes_end_where_they_end(texts: list[str], slice_bytes: int) -> None:
    with all_is_large(slice_bytes):
        document, large = large_json.cut_out(json.dumps({"a": texts}).encode())
    values = [large.get(text, text) for text in json.loads(document)["a"]]
    for value, text in zip(values, texts, strict=True):
        is_cut_out = isinstance(value, large_json.LargeText)
        assert (json.loads(value.document[value.start - 1 : value.end + 1]) if is_cut_out else value) == text


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (filler(b'""', large_json.MAX_TEXTS + 1), TooManyImages, "more than 100000 strings"),
        (
            filler(b"{}", large_json.MAX_STRUCTURE_BYTES // 2),
            BadTensor,
            "more than 1048576 bytes outside of strings and arrays",
        ),
        (b'{"a":"' + b'\\"' * 300_000 + b"}", BadTensor, "the string that begins there is not terminated"),
        (b'{"a":"' + b'\\"' * 300_000 + b"\\", BadTensor, "the string that begins there is not terminated"),
        (b'{"a":"' + b"x" * 300_000, BadTensor, "the string that begins there is not terminated"),
        (b'{"a":"' + b"\\" * 300_001 + b'"}', BadTensor, "the string that begins there is not terminated"),
        (b'{"a":' + b" " * 2_000_000 + b"1}", BadTensor, "more than 1048576 bytes"),
    ],
)
def test_documents_that_are_slow_to_parse_are_rejected(body: bytes, kind: type[ConvoyError], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_object(body)


def test_a_client_cannot_name_a_cut_out_value() -> None:
    names = {next(iter(large_json.cut_out(b'{"a":[' + NUMBERS + b"]}")[1])) for _ in range(3)}
    assert len(names) == 3
