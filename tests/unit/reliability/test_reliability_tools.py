"""The tools of tests.reliability distinguish growth from noise, and cut responses from complete ones."""

import asyncio

import numpy as np
import pytest

from tests.reliability.http_client import Connection, ConnectionCut, Reply, request
from tests.reliability.linear_trend import trend

HOUR_S = 3600


def noisy_samples(per_hour: float, seed: int) -> tuple[list[float], list[float]]:
    """Returns half an hour of correlated samples, like memory, that grow by `per_hour`."""
    random = np.random.default_rng(seed)
    times_s = np.arange(0, HOUR_S / 2, 5)
    wander = np.convolve(random.normal(size=len(times_s)), np.ones(10) / 10, "same")
    return times_s.tolist(), (100 + per_hour * times_s / HOUR_S + wander).tolist()


def test_growth_is_distinguished_from_noise() -> None:
    """About 5 of 100 series without growth may appear to grow."""
    flat = [trend(*noisy_samples(0.0, seed)) for seed in range(100)]
    assert sum(slope.low <= 0 <= slope.high for slope in flat) >= 85
    growing = [trend(*noisy_samples(4.0, seed)) for seed in range(100)]
    assert sum(slope.low > 0 for slope in growing) >= 95
    assert sum(slope.low <= 4 <= slope.high for slope in growing) >= 85
    with pytest.raises(ValueError, match="12 samples"):
        trend([1.0], [1.0])


def test_the_client_detects_truncated_and_duplicate_responses() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    script = {b"/whole": whole, b"/twice": whole + whole, b"/cut": whole[:-1]}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(script[head.split()[1]])
        await writer.drain()
        writer.close()

    async def send(path: str) -> tuple[Reply, bytes]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            connection = await Connection.open(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            answer = await asyncio.wait_for(connection.send(request("GET", path)), 10)
            return answer, connection.unrequested

    assert asyncio.run(send("/whole")) == (Reply(200, {b"content-length": b"2"}, b"ok"), b"")
    assert asyncio.run(send("/twice"))[1] == whole
    with pytest.raises(ConnectionCut, match="cut after 39 bytes"):
        asyncio.run(send("/cut"))
