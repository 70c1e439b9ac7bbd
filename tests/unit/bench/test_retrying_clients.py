"""The clients of the overload benchmark, against servers with fixed responses."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.load_generators import retrying_clients
from tests.bench.load_generators.retrying_clients import LOST, Load
from tests.bench.request_bodies import Body

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
REJECTED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def server(*answers: bytes) -> Iterator[str]:
    """Serves one connection with one response per request, and then closes it without a response."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, answers), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/path"
        thread.join()


def _answer(listener: socket.socket, answers: tuple[bytes, ...]) -> None:
    connection, _ = listener.accept()
    listener.close()
    with connection:
        for answer in answers:
            connection.recv(65536)
            connection.sendall(answer)
        if answers[-1] != REJECTED:
            connection.recv(65536)


def body(folder: Path) -> Body:
    (folder / "body.0").write_bytes(b"abc")
    return Body(folder / "body", 1, "image/png", 1, ())


def test_a_client_sends_again_after_each_answer_and_ends_when_nothing_listens(tmp_path: Path) -> None:
    with server(OK, OK) as url:
        (records,) = retrying_clients.run(Load(url, body(tmp_path), 1, 60.0))
    assert [one.status for one in records] == [200, 200, LOST]


def test_a_rejected_client_does_not_send_again_before_the_time_is_over(tmp_path: Path) -> None:
    with server(REJECTED) as url:
        (records,) = retrying_clients.run(Load(url, body(tmp_path), 1, 0.5))
    assert [one.status for one in records] == [429]
