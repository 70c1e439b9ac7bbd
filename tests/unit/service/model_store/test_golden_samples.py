"""Stored samples are read back unchanged, and rejected if they are damaged or belong to another model."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.errors import BrokenVersion
from service.model_store.golden_samples import MAX_IMAGES, MAX_UNPACKED_BYTES, GoldenSamples, read_golden_samples
from service.model_store.manifest import Input

INPUT = Input(height=8, width=6, channels=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), np.uint8)
PROBABILITIES = np.full((4, 5), 0.2, np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    GoldenSamples(IMAGES, {"float32": PROBABILITIES, "int8": PROBABILITIES / 2}).write(tmp_path / "samples.npz")
    return tmp_path / "samples.npz"


def test_samples_are_read_as_they_were_written(path: Path) -> None:
    samples = read_golden_samples(path, INPUT, 5)
    np.testing.assert_array_equal(samples.images, IMAGES)
    assert set(samples.probabilities) == {"float32", "int8"}
    np.testing.assert_array_equal(samples.probabilities["int8"], PROBABILITIES / 2)


def test_the_same_samples_make_the_same_file(path: Path, tmp_path: Path) -> None:
    GoldenSamples(IMAGES, {"float32": PROBABILITIES, "int8": PROBABILITIES / 2}).write(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("cut", [0, 10, -20])
def test_a_damaged_file_is_rejected(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BrokenVersion, match="is not an archive of samples"):
        read_golden_samples(path, INPUT, 5)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(BrokenVersion, match="is not an archive of samples"):
        read_golden_samples(tmp_path / "samples.npz", INPUT, 5)


def test_samples_of_another_model_are_rejected(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokenVersion, match=r"holds uint8 images \(8, 6, 3\)"):
        read_golden_samples(path, Input(height=8, width=8, channels=3), 5)
    with pytest.raises(BrokenVersion, match=r"probabilities of shape \(4, 5\)"):
        read_golden_samples(path, INPUT, 6)
    np.savez(tmp_path / "none.npz", other=IMAGES)
    with pytest.raises(BrokenVersion, match="is not an archive of samples"):
        read_golden_samples(tmp_path / "none.npz", INPUT, 5)


def test_an_archive_that_unpacks_to_too_much_is_rejected(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((MAX_UNPACKED_BYTES // 192 + 1, 8, 8, 3), np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < MAX_UNPACKED_BYTES / 100
    with pytest.raises(BrokenVersion, match=f"more than the {MAX_UNPACKED_BYTES} that are allowed"):
        read_golden_samples(tmp_path / "bomb.npz", Input(height=8, width=8, channels=3), 5)


def archive_of(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_a_shape_past_the_memory_is_rejected(path: Path) -> None:
    archive_of(path, images=npy_header((2**40, 8, 6, 3)) + bytes(100))
    with pytest.raises(BrokenVersion, match="is not an archive of samples"):
        read_golden_samples(path, INPUT, 5)


def test_an_encrypted_member_is_rejected(path: Path) -> None:
    archive_of(path, images=npy_header((1, 8, 6, 3)) + bytes(144))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BrokenVersion, match=r"is not an archive of samples: .*password"):
        read_golden_samples(path, INPUT, 5)


def test_an_unknown_compression_is_rejected(path: Path) -> None:
    archive_of(path, images=npy_header((1, 8, 6, 3)) + bytes(144))
    data = bytearray(path.read_bytes())
    data[8] = 99
    data[data.index(b"PK\1\2") + 10] = 99
    path.write_bytes(data)
    with pytest.raises(BrokenVersion, match=r"is not an archive of samples: .*compression"):
        read_golden_samples(path, INPUT, 5)


def test_a_member_that_is_not_an_array_is_rejected(path: Path) -> None:
    archive_of(path, images=b"text")
    with pytest.raises(BrokenVersion, match="is not an archive of samples: its member 'images' is not an array"):
        read_golden_samples(path, INPUT, 5)


def test_an_archive_without_images_is_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz", images=IMAGES[:0], float32=np.zeros((0, 5), np.float32))
    with pytest.raises(BrokenVersion, match=r"none\.npz holds no images"):
        read_golden_samples(tmp_path / "none.npz", INPUT, 5)


def test_an_archive_with_too_many_images_for_one_batch_is_rejected(tmp_path: Path) -> None:
    images = np.zeros((MAX_IMAGES + 1, *INPUT.shape), np.uint8)
    np.savez_compressed(tmp_path / "many.npz", images=images, float32=np.zeros((MAX_IMAGES + 1, 5), np.float32))
    with pytest.raises(BrokenVersion, match=r"holds 1001 images, more than the 1000 that are allowed"):
        read_golden_samples(tmp_path / "many.npz", INPUT, 5)


def test_a_reason_is_one_short_sentence(path: Path) -> None:
    archive_of(path, images=b"\x93NUMPY\1\0\x10\x27" + b"(" * 10_000)
    with pytest.raises(BrokenVersion, match="is not an archive of samples") as raised:
        read_golden_samples(path, INPUT, 5)
    assert len(raised.value.message) < 500


@pytest.mark.parametrize("kind", ["<U4", "<c8", "<M8[s]", "|u1"])
def test_outputs_that_are_not_numbers_are_rejected(path: Path, kind: str) -> None:
    np.savez(path, images=IMAGES, float32=np.zeros((4, 5), kind))
    with pytest.raises(BrokenVersion, match=r"probabilities of shape \(4, 5\)"):
        read_golden_samples(path, INPUT, 5)


def test_a_single_array_is_rejected(tmp_path: Path) -> None:
    np.save(tmp_path / "samples.npy", IMAGES)
    with pytest.raises(BrokenVersion, match="is not an archive of samples"):
        read_golden_samples(tmp_path / "samples.npy", INPUT, 5)
