"""Ways to spoil bytes that were sound: flipped, cut, doubled, overwritten, joined. Drawn from a seeded generator."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.random import Generator

NASTY = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MOST_FLIPS = 16


def one_of(random: Generator, choices: Sequence[Any]) -> Any:
    return choices[random.integers(len(choices))]


def flipped(random: Generator, data: bytes) -> bytes:
    """Some bits are the other way round."""
    spoilt = bytearray(data)
    for _ in range(random.integers(1, MOST_FLIPS)):
        spoilt[random.integers(len(spoilt))] ^= 1 << random.integers(8)
    return bytes(spoilt)


def cut(random: Generator, data: bytes) -> bytes:
    return data[: random.integers(len(data))]


def overwritten(random: Generator, data: bytes) -> bytes:
    """A number of one to four bytes is one at the edge of what numbers can be, in either byte order."""
    width = int(random.choice((1, 2, 4)))
    at = int(random.integers(max(1, len(data) - width)))
    value = int(random.choice(NASTY)) & (256**width - 1)
    return data[:at] + value.to_bytes(width, random.choice(("little", "big"))) + data[at + width :]


def doubled(random: Generator, data: bytes) -> bytes:
    """A piece of it comes several times."""
    start = int(random.integers(len(data)))
    piece = data[start : start + int(random.integers(1, 200))]
    return data[:start] + piece * int(random.integers(2, 40)) + data[start:]


def shortened(random: Generator, data: bytes) -> bytes:
    """A piece of it is missing."""
    start = int(random.integers(len(data)))
    return data[:start] + data[start + int(random.integers(1, 200)) :]


def joined(random: Generator, data: bytes, others: Sequence[bytes]) -> bytes:
    """The start of one and the end of another."""
    other = others[random.integers(len(others))]
    return cut(random, data) + other[random.integers(len(other)) :]


WAYS: dict[str, Callable[[Generator, bytes], bytes]] = {
    "bits flipped": flipped,
    "cut off": cut,
    "numbers overwritten": overwritten,
    "pieces repeated": doubled,
    "pieces missing": shortened,
}
