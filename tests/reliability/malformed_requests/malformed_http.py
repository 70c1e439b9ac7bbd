"""What is hardly HTTP: wrong lengths, nonsense for chunks, injected headers, overlong names, bodies without end."""

from collections.abc import Iterator

from numpy.random import Generator

from tests.reliability.malformed_requests import mutations, valid_inputs
from tests.reliability.malformed_requests.request_cases import ANY, FOREIGN, OWN, Case, post
from tests.support.images import encode, random_pixels

PATHS = ("/api/v1/models/small/classify", "/v2/models/small/infer", "/v1/models/small:predict", "/api/v1/models")
CLASSIFY = PATHS[0]
IMAGE = encode(random_pixels(*valid_inputs.SHAPE))
INJECTED = [
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
NUMBERS = ["-1", "+5", "0x10", "1e3", "1 2", "5, 5", "", " ", "9" * 30, "18446744073709551616", "٣", "5;5", "nan", "05"]
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


def spoilt(random: Generator) -> Case:
    """A sound request, head and all, spoilt in one way."""
    how = mutations.one_of(random, list(mutations.WAYS))
    path = mutations.one_of(random, PATHS)
    body = IMAGE if "classify" in path else mutations.one_of(random, valid_inputs.v2_json())
    wire = post(path, body, "application/json")
    if random.random() < 0.7:  # only the head, where the body would hide it
        head, end, rest = wire.partition(b"\r\n\r\n")
        wire = mutations.WAYS[how](random, head) + end + rest
    else:
        wire = mutations.WAYS[how](random, wire)
    return Case(f"HTTP, {how}", wire, ANY, silent=True)


def odd_length(random: Generator) -> Case:
    """A Content-Length that is none, or two that differ, or one that is too short or too long."""
    given = [f"content-length: {mutations.one_of(random, NUMBERS)}"]
    if random.random() < 0.3:
        given = [f"content-length: {len(IMAGE)}", f"content-length: {mutations.one_of(random, [*NUMBERS, '1'])}"]
    elif random.random() < 0.4:
        given = [f"content-length: {max(0, len(IMAGE) + int(random.integers(-60, 60)))}"]
    return _unsure("wrong Content-Length", _head("POST", CLASSIFY, *given) + IMAGE)


def odd_chunks(random: Generator) -> Case:
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
    lines = [f"transfer-encoding: {mutations.one_of(random, codings)}"]
    lines += [f"content-length: {mutations.one_of(random, NUMBERS)}"] * int(random.random() < 0.3)
    body = mutations.one_of(random, CHUNKS)
    if random.random() < 0.5:
        body = mutations.WAYS[mutations.one_of(random, list(mutations.WAYS))](random, body)
    return _unsure("chunked nonsense", _head("POST", mutations.one_of(random, PATHS[:3]), *lines) + body)


def injected(random: Generator) -> Case:
    """Headers that would be others, and that come back in answers or logs."""
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
        f"{mutations.one_of(random, names)}: {mutations.one_of(random, INJECTED)}" for _ in range(random.integers(1, 4))
    ]
    path = mutations.one_of(random, PATHS[:3])
    body = (
        IMAGE
        if path == CLASSIFY
        else mutations.one_of(random, valid_inputs.v2_json() if "v2" in path else valid_inputs.v1_json())
    )
    return _unsure("header injection", _head("POST", path, f"content-length: {len(body)}", *lines) + body)


def odd_paths(random: Generator) -> Case:
    """Names of models and versions that lead elsewhere, queries that are none, methods that there are not."""
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
    ours = ["/classify", "", "/versions/1/card.md", "/explain"]
    foreign = ["/infer", "", "/versions/1", "/config", "/stats"]
    path = f"/api/v1/models/{mutations.one_of(random, names)}{mutations.one_of(random, ours)}"
    if random.random() < 0.5:
        path = f"/v2/models/{mutations.one_of(random, names)}{mutations.one_of(random, foreign)}"
    method = mutations.one_of(
        random, ["POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "FOO", "CONNECT", "PRI"]
    )
    wire = _head(method, path + mutations.one_of(random, queries), f"content-length: {len(IMAGE)}") + IMAGE
    return _unsure("odd paths and methods", wire)


def odd_queries(random: Generator) -> Case:
    """A sound image for a model that is there, and parameters that are wrong, overlong or many."""
    names = ["top_k", "version", "class", "method", "model", ""]
    values = ["", "-1", "0", "00000000009", "9" * 400, "9" * 5000, "1.5", "nan", "a" * 300, "+"]
    values += ["%00", "%ff", "%ed%a0%80"]
    path = mutations.one_of(random, [CLASSIFY, f"{CLASSIFY}/batch", "/api/v1/models/small/explain"])
    given = [
        f"{mutations.one_of(random, names)}={mutations.one_of(random, values)}" for _ in range(random.integers(1, 3))
    ]
    return Case("query, wrong values", post(f"{path}?{'&'.join(given)}", IMAGE))


def nonsense(random: Generator) -> Case:
    """No HTTP at all: other protocols, or noise."""
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
    return _unsure("no HTTP", mutations.one_of(random, starts) + random.bytes(int(random.integers(2000))))


def crafted() -> Iterator[Case]:
    """What takes long or much, each once."""
    for path in PATHS[:3]:
        shape = FOREIGN if path.startswith("/v") else OWN
        announced = _head("POST", path, "content-length: 100000000")
        yield Case("100 MB, announced", announced + bytes(500_000), shape, silent=True)
        chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        whole = _head("POST", path, "transfer-encoding: chunked") + chunk * 100 + b"0\r\n\r\n"
        yield Case("100 MB, in chunks", whole, ANY, silent=True)
        small = _head("POST", path, "transfer-encoding: chunked") + b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n"
        yield Case("a body of a million chunks", small, ANY, silent=True)
        yield Case("a body that never comes", _head("POST", path, "content-length: 1000") + b"a", shape)
        yield Case("a body that never comes", _head("POST", path, "transfer-encoding: chunked") + b"5\r\nab", shape)
    for count, size in ((129, 10), (10_000, 10), (100, 5000), (1, 100_000), (1, 10_000_000), (100_000, 1)):
        lines = [f"x-{number}: {'a' * size}" for number in range(count)]
        yield Case("headers too large", _head("GET", "/api/v1/models", *lines), ANY, silent=True)
    yield Case("headers too large", b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n", ANY, silent=True)
    yield Case("headers that never end", b"GET /api/v1/models HTTP/1.1\r\nhost: x\r\n", ANY, silent=True)
    pipelined = _head("GET", "/api/v1/models") * 5000
    yield Case("five thousand requests at once", pipelined, ANY, silent=True)


def _unsure(kind: str, wire: bytes) -> Case:
    """It may be half a request, which nobody answers."""
    return Case(kind, wire, ANY, silent=True)


def _head(method: str, path: str, *lines: str) -> bytes:
    text = "\r\n".join([f"{method} {path} HTTP/1.1", "host: convoy", *lines, "\r\n"])
    return text.encode("latin-1", "replace") if text.isascii() else text.encode()
