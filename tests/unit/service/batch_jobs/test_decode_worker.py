"""Chunks are converted to model inputs; a damaged image affects only itself, an unavailable bucket ends the job."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.batch_jobs import decode_worker
from service.batch_jobs.decode_worker import DecodeSpec, UnreadableFile, decode_chunk, fingerprint_of
from service.batch_jobs.errors import JobInterrupted
from service.batch_jobs.find_images import Fingerprint, ImageFile
from service.batch_jobs.image_fingerprint import describe_change
from service.imaging.limits import DecodeLimits
from service.model_store.manifest import Input, Preprocessing
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo
from tests.support.images import encode, random_pixels

SPEC = DecodeSpec(Input(height=8, width=8, channels=1), Preprocessing(background=0), limits=DecodeLimits(100))


def test_pixels_and_errors_keep_the_order_of_images(tmp_path: Path) -> None:
    first, last = random_pixels(8, 8, seed=1), random_pixels(8, 8, seed=2)
    contents = {"first": encode(first), "text": b"text", "large": encode(random_pixels(20, 20)), "last": encode(last)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    chunk = [ImageFile(name, str(tmp_path / name)) for name in ("first", "text", "missing", "large", "last")]
    decoded = decode_chunk(chunk, SPEC)
    np.testing.assert_array_equal(decoded.images, [first, last])
    assert [error and error.code for error in decoded.errors] == [
        None,
        "bad_image",
        "unreadable",
        "image_too_large",
        None,
    ]


def test_a_byte_range_of_a_file_is_read(tmp_path: Path) -> None:
    pixels = random_pixels(8, 8, seed=3)
    encoded = encode(pixels)
    (tmp_path / "some.tar").write_bytes(b"before" + encoded + b"behind")
    decoded = decode_chunk([ImageFile("p", str(tmp_path / "some.tar"), "", 6, len(encoded))], SPEC)
    np.testing.assert_array_equal(decoded.images, [pixels])


def test_a_file_that_would_fill_the_memory_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_worker, "MAX_FILE_BYTES", 10)
    (tmp_path / "a.png").write_bytes(encode(random_pixels(8, 8)))
    for image in (ImageFile("a", str(tmp_path / "a.png")), ImageFile("b", "a.png", f"file://{tmp_path}")):
        (error,) = decode_chunk([image], SPEC).errors
        assert error is not None
        assert error.code == "image_too_large"


def test_objects_of_a_bucket_are_read_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    pixels = random_pixels(8, 8, seed=4)
    (tmp_path / "a.png").write_bytes(encode(pixels))
    url = f"file://{tmp_path}"
    decoded = decode_chunk([ImageFile("a", "a.png", url), ImageFile("gone", "gone.png", url)], SPEC)
    np.testing.assert_array_equal(decoded.images, [pixels])
    assert [error and error.code for error in decoded.errors] == [None, "unreadable"]


class FlakyBucket(Bucket):
    """A bucket that is unavailable for the first `failures` reads."""

    def __init__(self, failures: int, content: bytes) -> None:
        self._failures = failures
        self._content = content

    def info(self, path: str) -> ObjectInfo:
        return ObjectInfo(1, "tag")

    def chunks(self, path: str) -> Iterator[bytes]:
        self._failures -= 1
        if self._failures >= 0:
            raise BucketUnreachable("the bucket is away.")
        yield self._content


@pytest.mark.parametrize("failures", [decode_worker.MAX_READ_ATTEMPTS - 1, decode_worker.MAX_READ_ATTEMPTS])
def test_a_failing_bucket_is_retried_before_the_job_is_interrupted(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = FlakyBucket(failures, encode(random_pixels(8, 8)))
    monkeypatch.setattr(decode_worker, "_open_bucket_once", lambda url: bucket)
    monkeypatch.setattr(decode_worker, "FIRST_RETRY_DELAY_S", 0.001)
    chunk = [ImageFile("a", "a.png", "s3://b")]
    if failures < decode_worker.MAX_READ_ATTEMPTS:
        assert decode_chunk(chunk, SPEC).errors == [None]
    else:
        with pytest.raises(JobInterrupted, match="the bucket is away"):
            decode_chunk(chunk, SPEC)


def failing_with(number: int) -> Callable[[str], Fingerprint]:
    def file_fingerprint(path: str) -> Fingerprint:
        raise OSError(number, os.strerror(number), path)

    return file_fingerprint


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM])
def test_a_file_system_that_is_unreachable_ends_the_job(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in an unavailable bucket count neither as unreadable, which would be a result of the job, nor as changed,
    which would be final."""
    monkeypatch.setattr(decode_worker, "file_fingerprint", failing_with(number))
    image = ImageFile("a.png", "a.png")
    with pytest.raises(JobInterrupted, match=f"a.png cannot be read: {os.strerror(number)}"):
        decode_chunk([image], SPEC)
    for with_sha256 in (False, True):
        with pytest.raises(JobInterrupted, match=f"a.png cannot be read: {os.strerror(number)}"):
            fingerprint_of(image, with_sha256=with_sha256)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOENT])
def test_a_file_that_no_retry_reads_is_unreadable(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_worker, "file_fingerprint", failing_with(number))
    (error,) = decode_chunk([ImageFile("a.png", "a.png")], SPEC).errors
    assert isinstance(error, UnreadableFile)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "link to a device"])
def test_pipes_and_devices_are_never_opened(tmp_path: Path, kind: str) -> None:
    """Opening a pipe would block forever, and a device may have no end."""
    path, pipe = tmp_path / "a.png", tmp_path / "pipe"
    os.mkfifo(pipe)
    if kind == "pipe":
        path = pipe
    else:
        path.symlink_to(pipe if kind == "link to a pipe" else "/dev/zero")
    path = Path("/dev/zero") if kind == "device" else path
    decoded = decode_chunk([ImageFile("a", str(path))], SPEC)
    assert isinstance(decoded.errors[0], UnreadableFile)
    assert f"not a regular file but a {kind.rpartition(' ')[2]}" in decoded.errors[0].message


def test_the_fingerprint_of_a_file_shows_whether_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(random_pixels(8, 8, seed=1)))
    image = ImageFile("a", str(path))
    (as_read,) = decode_chunk([image], SPEC).fingerprints
    assert as_read == fingerprint_of(image, with_sha256=False)
    (with_sha256,) = decode_chunk([image], SPEC._replace(with_sha256=True)).fingerprints
    assert as_read is not None
    assert with_sha256 is not None
    os.utime(path, ns=(0, 0))
    assert describe_change(as_read, fingerprint_of(image, with_sha256=False)) == "it was written again"
    assert describe_change(with_sha256, fingerprint_of(image, with_sha256=True)) == ""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(0, int(as_read.stamp)))
    assert describe_change(as_read, fingerprint_of(image, with_sha256=False)) == ""
    assert describe_change(with_sha256, fingerprint_of(image, with_sha256=True)) == "its content differs"
    path.unlink()
    assert fingerprint_of(image, with_sha256=True) is None
    assert describe_change(as_read, None) == "it can no longer be read"


def test_the_fingerprint_of_an_object_is_its_size_and_tag(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    image = ImageFile("a", "a.png", f"file://{tmp_path}")
    before = fingerprint_of(image, with_sha256=False)
    assert before is not None
    assert before.bytes == 5
    os.utime(tmp_path / "a.png", (1, 1))
    assert fingerprint_of(image, with_sha256=False) != before


def test_a_decoding_process_loads_neither_onnxruntime_nor_http() -> None:
    program = "import sys, service.batch_jobs.decode_worker; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not set(loaded.stdout.split()) & {"onnxruntime", "fastapi", "starlette", "uvicorn", "fsspec"}
