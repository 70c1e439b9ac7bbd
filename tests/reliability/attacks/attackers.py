"""Runs a process that attacks a service over many connections, with at most `BYTES_PER_S` in total."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.reliability.attacks.attack_requests import Attack

BYTES_PER_S = 100_000
PIECE_BYTES = 1_000
HANG_UP_INTERVAL_S = 0.01
READ_BYTES = 1_000
"""Number of bytes of a response that an attacker reads before it closes the connection."""
CONNECTION_ERRORS = (OSError, asyncio.IncompleteReadError)


@contextmanager
def attacking(url: str, attack: Attack) -> Iterator[None]:
    """Attacks a service within the context. The attack runs in a separate process, so that it does not delay the
    measured clients."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(url, attack), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


class Pace:
    """Limits all connections together to `bytes_per_s`. The connections send their pieces one after the other."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = time.monotonic()

    async def wait(self, size: int) -> None:
        now_s = time.monotonic()
        self._free_at_s = max(now_s, self._free_at_s) + size / self._bytes_per_s
        await asyncio.sleep(self._free_at_s - now_s)


def _run(url: str, attack: Attack) -> None:
    asyncio.run(_attack(url, attack))


async def _attack(url: str, attack: Attack) -> None:
    address, pace = urlsplit(url), Pace(BYTES_PER_S)
    host, port = str(address.hostname), int(address.port or 80)
    await asyncio.gather(*(_send_for_ever(host, port, attack, pace) for _ in range(attack.connections)))


async def _send_for_ever(host: str, port: int, attack: Attack, pace: Pace) -> None:
    while True:
        with suppress(*CONNECTION_ERRORS):
            await _send_once(host, port, attack, pace)
        await asyncio.sleep(HANG_UP_INTERVAL_S)


async def _send_once(host: str, port: int, attack: Attack, pace: Pace) -> None:
    """Sends one request. Returns when the response has begun, or when the service has closed a connection that is only
    held."""
    reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    try:
        for start in range(0, len(attack.data), PIECE_BYTES):
            piece = attack.data[start : start + PIECE_BYTES]
            await pace.wait(len(piece))
            writer.write(piece)
            await writer.drain()
        if attack.hangs_up:
            return
        if attack.is_read:
            await reader.read(READ_BYTES)
        else:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await writer.wait_closed()
    finally:
        writer.close()
