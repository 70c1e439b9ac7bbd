"""JSON, tensors and forms that are invalid, deeply nested, huge or ambiguous, for every protocol."""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.reliability.malformed_requests import mutations, valid_inputs
from tests.reliability.malformed_requests.request_cases import Case, http_post, v1, v2
from tests.support.images import encode, random_pixels

BODY_BYTES = 16 * 1024 * 1024
BATCH, CLASSIFY = "/api/v1/models/small/classify/batch", "/api/v1/models/small/classify"
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
CODECS = ["undefined", "unicode_escape", "utf-7", "idna", "punycode", "rot13", "zlib", "utf-16", "none", ""]

INVALID_VALUES = [
    None,
    True,
    False,
    "",
    "NaN",
    "a" * 300,
    -1,
    0,
    1,
    255,
    256,
    2**31,
    2**53,
    2**63,
    2**64,
    10**400,
    1.5,
    1e308,
]
INVALID_VALUES += [
    float("nan"),
    float("inf"),
    [],
    [[]],
    {},
    {"a": 1},
    [0] * 9,
    [None],
    ["a"],
    "\ud800",
    "\x00",
    "\r\nx: y",
    "é" * 200,
]
"""Values that replace a valid value."""


def mutated_v2_json(random: Generator) -> Case:
    body = mutations.pick(random, valid_inputs.v2_json())
    mutation = mutations.pick(random, list(mutations.MUTATIONS))
    return v2(f"V2 JSON, {mutation}", mutations.MUTATIONS[mutation](random, body))


def mutated_v2_binary(random: Generator) -> Case:
    body, length = mutations.pick(random, valid_inputs.v2_binary())
    mutation = mutations.pick(random, list(mutations.MUTATIONS))
    return v2(f"V2 binary, {mutation}", mutations.MUTATIONS[mutation](random, body), length)


def mutated_v1_json(random: Generator) -> Case:
    mutation = mutations.pick(random, list(mutations.MUTATIONS))
    return v1(
        f"V1 JSON, {mutation}", mutations.MUTATIONS[mutation](random, mutations.pick(random, valid_inputs.v1_json()))
    )


def wrong_sizes(random: Generator) -> Case:
    """Returns a binary V2 request with a wrong size of the JSON, the tensor or its elements."""
    body, length = mutations.pick(random, valid_inputs.v2_binary())
    lengths = [
        0,
        1,
        length - 1,
        length + 1,
        len(body),
        len(body) + 1,
        2**31,
        2**63,
        10**30,
        "-1",
        "0x10",
        "1_0",
        "+5",
        "",
    ]
    if random.random() < 0.5:
        return v2("V2 binary, wrong sizes", body, mutations.pick(random, lengths))
    size = mutations.pick(random, [-1, 0, 1, 63, 65, 2**31, 2**64, 1.5, "64", None, True, [], 10**400])
    tensor = valid_inputs.tensor() | {
        "parameters": {"binary_data_size": size},
        "datatype": mutations.pick(random, ["UINT8", "BYTES"]),
    }
    del tensor["data"]
    text = json.dumps({"inputs": [tensor]}).encode()
    tail = mutations.pick(random, [bytes(64), b"", struct.pack("<I", 2**32 - 1) + bytes(60), struct.pack("<I", 0) * 16])
    return v2("V2 binary, wrong sizes", text + tail, len(text))


def invalid_v2_values(random: Generator) -> Case:
    """Returns a valid request with one wrong value: name, datatype, shape, number, NaN, id or parameter."""
    request: dict[str, Any] = {"id": "a", "inputs": [valid_inputs.tensor()], "parameters": {}, "outputs": []}
    tensor = request["inputs"][0]
    holder, name = mutations.pick(
        random,
        [(request, key) for key in ("id", "inputs", "outputs", "parameters")]
        + [(tensor, key) for key in ("name", "datatype", "shape", "data", "parameters")]
        + [
            (request["parameters"], key)
            for key in ("timeout", "priority", "binary_data_output", "shared_memory_region")
        ]
        + [(tensor["data"], 3), (tensor["shape"], 0), (tensor["shape"], 1)],
    )
    holder[name] = mutations.pick(random, INVALID_VALUES)
    if random.random() < 0.2:
        tensor["datatype"] = mutations.pick(random, ["FP32", "INT64", "BOOL", "uint8", "BYTES", "FP16"])
    return v2("V2 JSON, wrong values", _to_json(request))


def invalid_v1_values(random: Generator) -> Case:
    pixels = random_pixels(*valid_inputs.SHAPE).tolist()
    pixels[3][2] = [mutations.pick(random, INVALID_VALUES)]
    instance = mutations.pick(
        random,
        [
            *INVALID_VALUES,
            pixels,
            {"b64": mutations.pick(random, INVALID_VALUES)},
            {"image": mutations.pick(random, INVALID_VALUES)},
        ],
    )
    request = {mutations.pick(random, ["instances", "inputs", "both", ""]): [instance] * int(random.integers(1, 4))}
    request |= {"parameters": {"top_k": mutations.pick(random, INVALID_VALUES)}} if random.random() < 0.3 else {}
    request |= {"signature_name": mutations.pick(random, INVALID_VALUES)} if random.random() < 0.3 else {}
    return v1("V1 JSON, wrong values", _to_json(request))


def invalid_batch_values(random: Generator) -> Case:
    """Returns a request to Convoy's batch endpoint with arbitrary values for images and ids."""
    valid_image = {"data": base64.b64encode(encode(random_pixels(*valid_inputs.SHAPE))).decode(), "id": "a"}
    image = valid_image | {mutations.pick(random, ["data", "id", "more"]): mutations.pick(random, INVALID_VALUES)}
    request = mutations.pick(
        random,
        [
            {"images": [valid_image, image]},
            {"images": mutations.pick(random, INVALID_VALUES)},
            [image],
            image,
            {"image": valid_image},
        ],
    )
    kind = mutations.pick(random, [JSON, JSON, "application/json; charset=utf-16", "text/plain", ""])
    return Case("batch JSON, wrong values", http_post(BATCH, _to_json(request), kind))


def invalid_form(random: Generator) -> Case:
    """Returns a multipart form with wrong or missing parts, names and boundaries."""
    boundary = b"--x"
    names = ["file", "files", "", 'fi"le', "a" * 5000, "file\r\nx: y", "\0", "file; filename=../../etc/passwd", "é"]
    names += [r"\ud800", "+2AA-", "xn--a"]
    name = mutations.pick(random, names).encode()
    heads = [
        b'content-disposition: form-data; name="%s"; filename="%s"' % (name, mutations.pick(random, names).encode())
    ]
    heads += [b"content-disposition: form-data", b"content-disposition", b"", b"a" * 9000, b"content-type: image/png"]
    part = (
        boundary
        + b"\r\n"
        + mutations.pick(random, heads)
        + b"\r\n\r\n"
        + encode(random_pixels(*valid_inputs.SHAPE))
        + b"\r\n"
    )
    body = part * int(random.integers(0, 4)) + mutations.pick(
        random, [boundary + b"--\r\n", b"", boundary, b"--y--\r\n"]
    )
    if random.random() < 0.4:
        body = mutations.MUTATIONS[mutations.pick(random, list(mutations.MUTATIONS))](random, body + b"x")
    kinds = ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 300, 'multipart/form-data; boundary="\\""']
    kind = mutations.pick(random, [FORM, FORM, f"{FORM}; charset={mutations.pick(random, CODECS)}", *kinds])
    return Case("multipart form, wrong", http_post(mutations.pick(random, [CLASSIFY, BATCH]), body, kind))


def crafted_cases() -> Iterator[Case]:
    """Yields bodies that are designed to be as expensive as possible."""
    yield from _nested_json()
    yield from _huge_json()
    yield from _huge_forms()
    yield from _compressed()
    yield v2("raw tensor of 100 MB", b"", None)._replace(
        request_bytes=_long_content_length(100_000_000), may_be_silent=True
    )
    for body in (bytes(BODY_BYTES), bytes(BODY_BYTES + 1), bytes(17_000_000)):
        yield v2("raw tensor of 16 MB", body, 0)
        yield Case("raw body of 16 MB", http_post(CLASSIFY, body))


def _nested_json() -> Iterator[Case]:
    for depth in (100, 1000, 1024, 1025, 100_000, BODY_BYTES // 2 - 100):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            text = opening * min(depth, BODY_BYTES // 7) + b"1" + closing * min(depth, BODY_BYTES // 7)
            yield v2("deep JSON", text)
            yield v2("deep JSON", b'{"inputs":' + text + b"}")
            yield v1("deep JSON", b'{"instances":' + text + b"}")
            yield Case("deep JSON", http_post(BATCH, b'{"images":' + text + b"}", JSON))
            yield Case("deep JSON", http_post(BATCH, text, JSON))


def _huge_json() -> Iterator[Case]:
    kind = "JSON of 16 MB"
    fillers: dict[str, Callable[[int], bytes]] = {
        "numbers": lambda n: b"1," * n + b"1",
        "long numbers": lambda n: b"255," * n + b"1",
        "lists": lambda n: b"[]," * n + b"[]",
        "lists of numbers": lambda n: b"[1]," * n + b"[1]",
        "objects": lambda n: b"{}," * n + b"{}",
        "objects of nothing": lambda n: b'{"":0},' * n + b"{}",
        "texts": lambda n: b'"",' * n + b'""',
        "names": lambda n: b'{"data":""},' * n + b"{}",
        "digits": lambda n: b"1" * n,
        "fractions": lambda n: b"0.5," * n + b"1",
        "nulls": lambda n: b"null," * n + b"1",
        "images": lambda n: b'{"b64":"AAAA"},' * n + b"{}",
    }
    head = b'{"inputs":[{"name":"image","datatype":"%s","shape":[1,8,8,1],"data":['
    for filler in fillers.values():
        inner = filler((BODY_BYTES - 1000) // len(filler(2).split(b",")[0] + b","))[: BODY_BYTES - 1000]
        inner = inner.rpartition(b",")[0] + b",1" if b"," in inner else inner
        for datatype in (b"UINT8", b"BYTES"):
            yield v2(kind, head % datatype + inner + b"]}]}")
        yield v2(kind, b'{"inputs":[' + inner + b"]}")
        yield v2(kind, b'{"inputs":[{"name":"image","datatype":"UINT8","data":[1],"shape":[' + inner + b"]}]}")
        yield v1(kind, b'{"instances":[' + inner + b"]}")
        yield v1(kind, b'{"instances":[[' + inner + b"]]}")
        yield v1(kind, b'{"inputs":[[[' + inner + b"]]]}")
        yield Case(kind, http_post(BATCH, b'{"images":[' + inner + b"]}", JSON))
    keys = b",".join(b'"%d":0' % number for number in range(1_200_000))
    for text in (b"{" + keys + b"}", b'{"inputs":[{' + keys + b"}]}", b'{"instances":[{' + keys + b"}]}"):
        yield v2(kind, text)
        yield v1(kind, text)
        yield Case(kind, http_post(BATCH, text.replace(b"instances", b"images"), JSON))
    yield v2("overlong ids", _to_json({"id": "a" * 15_000_000, "inputs": [valid_inputs.tensor()]}))
    yield Case("overlong ids", http_post(BATCH, _to_json({"images": [{"data": "", "id": "é" * 2_000_000}]}), JSON))


def _huge_forms() -> Iterator[Case]:
    kind = "form of 16 MB"
    part = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\na\r\n'
    head = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n'
    pieces = {
        "parts": (b"", part),
        "fields": (b"", b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\na\r\n'),
        "headers": (b"--x\r\n", b"a:b\r\n"),
        "one header": (b"--x\r\na: ", b"b"),
        "one name": (b"--x\r\n", b"a"),
        "line ends": (head + b"\r\n", b"\r\n"),
        "half marks": (head + b"\r\n", b"\r\n--"),
        "almost marks": (head + b"\r\n", b"\r\n--y"),
        "returns": (head + b"\r\n", b"\r"),
        "before the first": (b"", b"\r\n"),
        "after the last": (b"--x--\r\n", b"\r\n"),
        "dashes": (head + b"\r\n", b"-"),
    }
    for before, piece in pieces.values():
        body = before + piece * ((BODY_BYTES - len(before) - 20) // len(piece)) + b"\r\n--x--\r\n"
        for path in (CLASSIFY, BATCH):
            yield Case(kind, http_post(path, body, FORM))


def _compressed() -> Iterator[Case]:
    kind = "Content-Encoding"
    zeros = gzip.compress(bytes(200_000_000), 9)
    tensors = [zeros, gzip.compress(valid_inputs.v2_json()[0]), zeros[:1000], gzip.compress(zeros), b"", b"\x1f\x8b"]
    for body in tensors:
        for encoding in ("gzip", "deflate", "br", "gzip, gzip", "GZIP", "\xe9"):
            yield v2(kind, body, None, "small", f"content-encoding: {encoding}")
    deflated = zlib.compress(np.zeros(15_000_000, np.uint8).tobytes())
    yield v2(kind, deflated, 0, "small", "content-encoding: deflate")


def _long_content_length(size: int) -> bytes:
    """Returns a request whose Content-Length is `size`, with only part of the body."""
    head = f"POST /v2/models/small/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + bytes(1_000_000)


def _to_json(value: object) -> bytes:
    """Encodes JSON as Python does, with NaN and Infinity, and lone surrogates as escapes."""
    return json.dumps(value).encode()
