"""Mutations of valid bytes: flip, truncate, repeat, overwrite, splice. They are drawn from a seeded generator."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.random import Generator

BOUNDARY_VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MAX_FLIPS = 16


def pick(random: Generator, choices: Sequence[Any]) -> Any:
    return choices[random.integers(len(choices))]


def flip_bits(random: Generator, data: bytes) -> bytes:
    """Flips some bits."""
    mutated = bytearray(data)
    for _ in range(random.integers(1, MAX_FLIPS)):
        mutated[random.integers(len(mutated))] ^= 1 << random.integers(8)
    return bytes(mutated)


def truncate(random: Generator, data: bytes) -> bytes:
    return data[: random.integers(len(data))]


def overwrite_number(random: Generator, data: bytes) -> bytes:
    """Overwrites one to four bytes with a boundary value of an integer, in either byte order."""
    width = int(random.choice((1, 2, 4)))
    at = int(random.integers(max(1, len(data) - width)))
    value = int(random.choice(BOUNDARY_VALUES)) & (256**width - 1)
    return data[:at] + value.to_bytes(width, random.choice(("little", "big"))) + data[at + width :]


def repeat_piece(random: Generator, data: bytes) -> bytes:
    """Repeats a piece several times."""
    start = int(random.integers(len(data)))
    piece = data[start : start + int(random.integers(1, 200))]
    return data[:start] + piece * int(random.integers(2, 40)) + data[start:]


def remove_piece(random: Generator, data: bytes) -> bytes:
    """Removes a piece."""
    start = int(random.integers(len(data)))
    return data[:start] + data[start + int(random.integers(1, 200)) :]


def splice(random: Generator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Joins the start of one input and the end of another."""
    other = others[random.integers(len(others))]
    return truncate(random, data) + other[random.integers(len(other)) :]


MUTATIONS: dict[str, Callable[[Generator, bytes], bytes]] = {
    "bits flipped": flip_bits,
    "cut off": truncate,
    "numbers overwritten": overwrite_number,
    "pieces repeated": repeat_piece,
    "pieces missing": remove_piece,
}
