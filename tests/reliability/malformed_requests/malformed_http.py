"""Invalid HTTP: wrong lengths, invalid chunks, injected headers, overlong names, endless bodies."""

from collections.abc import Iterator

from numpy.random import Generator

from tests.reliability.malformed_requests import mutations, valid_inputs
from tests.reliability.malformed_requests.request_cases import ANY_ERROR, CONVOY_ERROR, TEXT_ERROR, Case, http_post
from tests.support.images import encode, random_pixels

PATHS = ("/api/v1/models/small/classify", "/v2/models/small/infer", "/v1/models/small:predict", "/api/v1/models")
CLASSIFY = PATHS[0]
IMAGE = encode(random_pixels(*valid_inputs.SHAPE))
HEADER_VALUES = [
    "a\r\nx-injected: 1",
    "a\nset-cookie: b=c",
    "a\0b",
    "\x7f",
    "é",
    "a" * 129,
    "a" * 20_000,
    "%0d%0ax: y",
    "",
    " ",
]
CONTENT_LENGTHS = [
    "-1",
    "+5",
    "0x10",
    "1e3",
    "1 2",
    "5, 5",
    "",
    " ",
    "9" * 30,
    "18446744073709551616",
    "٣",
    "5;5",
    "nan",
    "05",
]
CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nx",
    b"-1\r\nx\r\n0\r\n\r\n",
    b"5\r\nhel\r\n0\r\n\r\n",
    b"zz\r\n\r\n",
]
CHUNKS += [
    b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"0\r\nx: y\r\n\r\n",
    b"1\r\na\r\n" * 3000 + b"0\r\n\r\n",
]
CHUNKS += [
    b"00000000000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n" + b"t: v\r\n" * 500 + b"\r\n",
    b"\r\n",
]


def mutated_request(random: Generator) -> Case:
    """Returns a valid request with one mutation, which may be in its headers."""
    mutation = mutations.pick(random, list(mutations.MUTATIONS))
    path = mutations.pick(random, PATHS)
    body = IMAGE if "classify" in path else mutations.pick(random, valid_inputs.v2_json())
    request_bytes = http_post(path, body, "application/json")
    if random.random() < 0.7:  # mutate only the headers, because otherwise most mutations would be in the body
        head, end, rest = request_bytes.partition(b"\r\n\r\n")
        request_bytes = mutations.MUTATIONS[mutation](random, head) + end + rest
    else:
        request_bytes = mutations.MUTATIONS[mutation](random, request_bytes)
    return Case(f"HTTP, {mutation}", request_bytes, ANY_ERROR, may_be_silent=True)


def invalid_content_length(random: Generator) -> Case:
    """Returns a request with an invalid Content-Length, with two different values, or with a value that is too small or
    too large."""
    header_lines = [f"content-length: {mutations.pick(random, CONTENT_LENGTHS)}"]
    if random.random() < 0.3:
        header_lines = [
            f"content-length: {len(IMAGE)}",
            f"content-length: {mutations.pick(random, [*CONTENT_LENGTHS, '1'])}",
        ]
    elif random.random() < 0.4:
        header_lines = [f"content-length: {max(0, len(IMAGE) + int(random.integers(-60, 60)))}"]
    return _maybe_unanswered("wrong Content-Length", _head("POST", CLASSIFY, *header_lines) + IMAGE)


def invalid_chunks(random: Generator) -> Case:
    codings = [
        "chunked",
        "chunked",
        "chunked, chunked",
        "gzip, chunked",
        "identity",
        "chunkedd",
        " chunked",
        "\tchunked",
    ]
    lines = [f"transfer-encoding: {mutations.pick(random, codings)}"]
    lines += [f"content-length: {mutations.pick(random, CONTENT_LENGTHS)}"] * int(random.random() < 0.3)
    body = mutations.pick(random, CHUNKS)
    if random.random() < 0.5:
        body = mutations.MUTATIONS[mutations.pick(random, list(mutations.MUTATIONS))](random, body)
    return _maybe_unanswered("chunked nonsense", _head("POST", mutations.pick(random, PATHS[:3]), *lines) + body)


def header_injection(random: Generator) -> Case:
    """Returns a request whose headers try to inject other headers, or to appear in responses or logs."""
    names = ["x-request-id", "x-request-timeout-ms", "priority", "content-type", "accept-encoding", "traceparent"]
    names += [
        "inference-header-content-length",
        "authorization",
        "content-encoding",
        "x-forwarded-for",
        "host",
        "expect",
    ]
    lines = [
        f"{mutations.pick(random, names)}: {mutations.pick(random, HEADER_VALUES)}"
        for _ in range(random.integers(1, 4))
    ]
    path = mutations.pick(random, PATHS[:3])
    body = (
        IMAGE
        if path == CLASSIFY
        else mutations.pick(random, valid_inputs.v2_json() if "v2" in path else valid_inputs.v1_json())
    )
    return _maybe_unanswered("header injection", _head("POST", path, f"content-length: {len(body)}", *lines) + body)


def invalid_paths(random: Generator) -> Case:
    """Returns a request with path traversal in names of models or versions, invalid queries or unknown methods."""
    names = [
        "../../etc/passwd",
        "..%2f..%2fetc",
        "small%00",
        "%ff",
        "é",
        "a" * 3000,
        "small/",
        "small?version=",
        "",
        "*",
    ]
    queries = [
        "",
        "?top_k=" + "9" * 400,
        "?top_k=-1",
        "?version=../1",
        "?version=" + "1" * 5000,
        "?" + "a&" * 2000,
        "?%",
    ]
    suffixes = ["/classify", "", "/versions/1/card.md", "/explain"]
    v2_suffixes = ["/infer", "", "/versions/1", "/config", "/stats"]
    path = f"/api/v1/models/{mutations.pick(random, names)}{mutations.pick(random, suffixes)}"
    if random.random() < 0.5:
        path = f"/v2/models/{mutations.pick(random, names)}{mutations.pick(random, v2_suffixes)}"
    method = mutations.pick(
        random, ["POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "FOO", "CONNECT", "PRI"]
    )
    request_bytes = _head(method, path + mutations.pick(random, queries), f"content-length: {len(IMAGE)}") + IMAGE
    return _maybe_unanswered("odd paths and methods", request_bytes)


def invalid_queries(random: Generator) -> Case:
    """Returns a request with a valid image for an existing model and wrong, overlong or many parameters."""
    names = ["top_k", "version", "class", "method", "model", ""]
    values = ["", "-1", "0", "00000000009", "9" * 400, "9" * 5000, "1.5", "nan", "a" * 300, "+"]
    values += ["%00", "%ff", "%ed%a0%80"]
    path = mutations.pick(random, [CLASSIFY, f"{CLASSIFY}/batch", "/api/v1/models/small/explain"])
    parameters = [
        f"{mutations.pick(random, names)}={mutations.pick(random, values)}" for _ in range(random.integers(1, 3))
    ]
    return Case("query, wrong values", http_post(f"{path}?{'&'.join(parameters)}", IMAGE))


def not_http(random: Generator) -> Case:
    """Returns bytes of another protocol, or noise."""
    starts = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"GET /\r\n",
    ]
    starts += [
        b"",
        b"\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n: \r\n\r\n",
        b"\0" * 100,
    ]
    return _maybe_unanswered("no HTTP", mutations.pick(random, starts) + random.bytes(int(random.integers(2000))))


def crafted_cases() -> Iterator[Case]:
    """Yields requests that are designed to take much time or memory, each once."""
    for path in PATHS[:3]:
        shape = TEXT_ERROR if path.startswith("/v") else CONVOY_ERROR
        declared = _head("POST", path, "content-length: 100000000")
        yield Case("100 MB, announced", declared + bytes(500_000), shape, may_be_silent=True)
        chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        in_chunks = _head("POST", path, "transfer-encoding: chunked") + chunk * 100 + b"0\r\n\r\n"
        yield Case("100 MB, in chunks", in_chunks, ANY_ERROR, may_be_silent=True)
        tiny_chunks = _head("POST", path, "transfer-encoding: chunked") + b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n"
        yield Case("a body of a million chunks", tiny_chunks, ANY_ERROR, may_be_silent=True)
        yield Case("a body that never comes", _head("POST", path, "content-length: 1000") + b"a", shape)
        yield Case("a body that never comes", _head("POST", path, "transfer-encoding: chunked") + b"5\r\nab", shape)
    for count, size in ((129, 10), (10_000, 10), (100, 5000), (1, 100_000), (1, 10_000_000), (100_000, 1)):
        lines = [f"x-{number}: {'a' * size}" for number in range(count)]
        yield Case("headers too large", _head("GET", "/api/v1/models", *lines), ANY_ERROR, may_be_silent=True)
    yield Case("headers too large", b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n", ANY_ERROR, may_be_silent=True)
    yield Case("headers that never end", b"GET /api/v1/models HTTP/1.1\r\nhost: x\r\n", ANY_ERROR, may_be_silent=True)
    pipelined = _head("GET", "/api/v1/models") * 5000
    yield Case("five thousand requests at once", pipelined, ANY_ERROR, may_be_silent=True)


def _maybe_unanswered(kind: str, request_bytes: bytes) -> Case:
    """Returns a case that may have no response, because the request may be incomplete."""
    return Case(kind, request_bytes, ANY_ERROR, may_be_silent=True)


def _head(method: str, path: str, *lines: str) -> bytes:
    text = "\r\n".join([f"{method} {path} HTTP/1.1", "host: convoy", *lines, "\r\n"])
    return text.encode("latin-1", "replace") if text.isascii() else text.encode()
