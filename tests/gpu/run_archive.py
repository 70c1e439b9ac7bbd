"""Packs folders of runs into an archive that is split into small parts, and unpacks them."""

import io
import tarfile
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

PART_BYTES = 15 * 2**20
WEIGHTS = "model.keras"
TEMPORARY_FILES = {"checkpoint.npz", ".lock", "tensorboard"}
"""Files that only a run in progress or TensorBoard needs."""


def pack(folders: Iterable[Path], without_weights: Collection[Path], out: Path) -> list[Path]:
    """Writes the folders, each below its parent's name, into out/runs.part-*; returns the parts."""
    for old in out.glob("runs.part-*"):
        old.unlink()
    parts = []
    with tempfile.TemporaryFile() as joined_parts:
        with tarfile.open(fileobj=joined_parts, mode="w:gz") as archive:
            for folder in folders:
                for file in sorted(folder.iterdir()):
                    if file.name not in TEMPORARY_FILES and not (file.name == WEIGHTS and folder in without_weights):
                        archive.add(file, f"{folder.parent.name}/{folder.name}/{file.name}")
        joined_parts.seek(0)
        for number, chunk in enumerate(iter(lambda: joined_parts.read(PART_BYTES), b"")):
            parts.append(out / f"runs.part-{number:02}")
            parts[-1].write_bytes(chunk)
    return parts


def unpack(out: Path, runs: Path) -> list[Path]:
    """Unpacks the folders below `runs` and returns them, sorted. Raises FileNotFoundError without parts."""
    parts = sorted(out.glob("runs.part-*"))
    if not parts:
        raise FileNotFoundError(f"{out} has no runs.part-*: name the folder that tests.gpu.train has written")
    joined_parts = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(fileobj=joined_parts, mode="r:gz") as archive:
        archive.extractall(runs, filter="data")
        return sorted({runs / Path(member.name).parent for member in archive.getmembers()})
