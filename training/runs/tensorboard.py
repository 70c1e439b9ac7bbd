"""Writes event files for TensorBoard without using it: scalars need only a small part of the format.

The format is TFRecords of protocol buffers: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto
and summary.proto.
"""

import struct
import time
from collections.abc import Sequence
from pathlib import Path

from training.atomic_files import atomic_write
from training.errors import system_error
from training.runs.run_folder import HistoryRow

FILE_VERSION = "brain.Event:2"
TAGS = {
    "loss": "loss/training",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "val_accuracy": "accuracy/validation",
}
"""Columns of the history that TensorBoard draws in one chart. Every other column has its own chart."""


class EventFile:
    """The event file of a run in `folder`, with one step per epoch."""

    def __init__(self, folder: Path, history: Sequence[HistoryRow]) -> None:
        """Starts a new file with the epochs in `history`, which replaces the files from before the run was resumed."""
        folder.mkdir(exist_ok=True)
        previous_files = list(folder.glob("events.out.tfevents.*"))
        self._path = folder / f"events.out.tfevents.{len(history):06}"  # TensorBoard reads the last file in this order
        data = tfrecord(_version_event()) + b"".join(tfrecord(_scalar_event(row)) for row in history)
        atomic_write(self._path, lambda path: path.write_bytes(data))
        for path in previous_files:
            if path != self._path:
                path.unlink(missing_ok=True)

    def append(self, row: HistoryRow) -> None:
        """Appends an epoch. TensorBoard follows growing files, so the file is not replaced."""
        try:
            with self._path.open("ab") as file:
                file.write(tfrecord(_scalar_event(row)))
        except OSError as error:
            raise system_error(f"{self._path} could not be written: {error.strerror or error}.", error) from error


def tfrecord(data: bytes) -> bytes:
    """Returns a TFRecord: length, checksum of the length, data, checksum of the data."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _version_event() -> bytes:
    return _event(0) + _bytes_field(3, FILE_VERSION.encode())


def _scalar_event(row: HistoryRow) -> bytes:
    scalars = {TAGS.get(column, column): value for column, value in row.items() if column != "epoch"}
    values = [_bytes_field(1, tag.encode()) + _fixed32(2, value) for tag, value in scalars.items()]
    return _event(int(row["epoch"])) + _bytes_field(5, b"".join(_bytes_field(1, value) for value in values))


def _event(step: int) -> bytes:
    return _fixed64(1, time.time()) + _varint_field(2, step)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _fixed64(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fixed32(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _crc_table() -> tuple[int, ...]:
    """Returns the table of CRC-32C (Castagnoli), bits reversed."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


CRC_TABLE = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    """Returns the CRC with TensorFlow's mask: a CRC over data that contains CRCs would be weak."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
