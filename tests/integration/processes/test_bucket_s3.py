"""Models are served from a bucket with an S3 API: moto's server on this machine, read with s3fs."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from service.model_store.mirror import BucketMirror
from service.model_store.object_store import BucketUnreachable, open_bucket
from service.model_store.repository import Repository
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.service_process import CONVOY, RunningService

BUCKET = "convoy-tests"
PREFIX = "some/models"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class S3:
    """An S3 server and a client that uploads to it."""

    def __init__(self) -> None:
        self.start(port=0)
        host, self._port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{self._port}"
        session = botocore.session.Session()
        session.set_credentials("test", "test")
        self.client: Any = session.create_client("s3", "us-east-1", endpoint_url=self.endpoint)
        self.client.create_bucket(Bucket=BUCKET)

    def start(self, port: int | None = None) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port if port is None else port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=content)

    def upload(self, folder: Path) -> None:
        for file in folder.iterdir():
            self.put(f"{folder.parent.name}/{folder.name}/{file.name}", file.read_bytes())

    def remove(self, *keys: str) -> None:
        for key in keys:
            self.client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")

    def empty(self) -> None:
        for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.client.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    s3 = S3()
    yield s3
    s3.client.close()
    s3.stop()


@pytest.fixture
def s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Returns the server with versions 1 and 2 of `linear` and objects that are not models."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(name, value)
    for version in (1, 2):
        server.upload(write_version(tmp_path / "made", "linear", version, seed=version))
    server.put("readme.txt", b"not a model")
    server.put("linear/1/", b"")  # the placeholder that S3 consoles create for a folder
    yield server
    server.empty()


@pytest.fixture
def mirror(s3: S3, tmp_path: Path) -> BucketMirror:
    return BucketMirror(open_bucket(f"s3://{BUCKET}/{PREFIX}"), tmp_path / "cache")


def versions(mirror: BucketMirror) -> list[int]:
    """Returns the versions in the repository after opening each of them, which verifies the checksums."""
    repository = Repository(mirror.folder)
    numbers = repository.versions("linear")
    for number in numbers:
        folder = repository.open("linear", number)
        folder.graph_path(folder.manifest.variants[0])
    return numbers


def test_versions_are_added_changed_and_removed(mirror: BucketMirror, s3: S3, tmp_path: Path) -> None:
    mirror.sync()
    assert versions(mirror) == [1, 2]
    stat_before = (mirror.folder / "linear" / "2" / "model.onnx").stat()
    s3.upload(write_version(tmp_path / "made", "linear", 3))
    edited = write_version(tmp_path / "edited", "linear", 1, seed=9)
    s3.upload(edited)
    mirror.sync()
    assert versions(mirror) == [1, 2, 3]
    assert (mirror.folder / "linear" / "1" / "model.onnx").read_bytes() == (edited / "model.onnx").read_bytes()
    assert (mirror.folder / "linear" / "2" / "model.onnx").stat() == stat_before
    s3.remove(*(f"linear/1/{name}" for name in ("model.onnx", "labels.txt", "manifest.json")))
    mirror.sync()
    assert versions(mirror) == [2, 3]


def test_a_partial_object_and_a_wrong_checksum_are_not_published(mirror: BucketMirror, s3: S3, tmp_path: Path) -> None:
    graph = (tmp_path / "made" / "linear" / "2" / "model.onnx").read_bytes()
    s3.put("linear/2/model.onnx", graph[: len(graph) // 2])
    mirror.sync()
    assert (versions(mirror), list(mirror.failures)) == ([1], ["linear/2"])
    assert (
        f"s3://{BUCKET}/{PREFIX}/linear/2 is broken: model.onnx has {len(graph) // 2} bytes"
        in mirror.failures["linear/2"]
    )
    s3.put("linear/2/model.onnx", graph[:-1] + b"\0")
    mirror.sync()
    assert "sha256" in mirror.failures["linear/2"]
    assert versions(mirror) == [1]
    s3.put("linear/2/model.onnx", graph)
    mirror.sync()
    assert (versions(mirror), mirror.failures) == ([1, 2], {})


def test_an_incomplete_multipart_upload_is_ignored(mirror: BucketMirror, s3: S3, tmp_path: Path) -> None:
    folder = write_version(tmp_path / "made", "linear", 3, shape=(128, 128, 3), classes=32)
    key = {"Bucket": BUCKET, "Key": f"{PREFIX}/linear/3/model.onnx"}
    upload = key | {"UploadId": s3.client.create_multipart_upload(**key)["UploadId"]}
    graph = (folder / "model.onnx").read_bytes()
    pieces = [graph[: 5 * 1024**2], graph[5 * 1024**2 :]]
    assert all(pieces), "the first part of an S3 upload must have at least 5 MiB"
    parts = [
        {"PartNumber": n, "ETag": s3.client.upload_part(**upload, PartNumber=n, Body=piece)["ETag"]}
        for n, piece in enumerate(pieces, start=1)
    ]
    for name in ("manifest.json", "labels.txt"):
        s3.put(f"linear/3/{name}", (folder / name).read_bytes())
    mirror.sync()
    assert versions(mirror) == [1, 2]
    assert "model.onnx, which the manifest names, is missing" in mirror.failures["linear/3"]
    s3.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    mirror.sync()
    assert versions(mirror) == [1, 2, 3]


def test_an_outage_leaves_the_cache_as_it_is(mirror: BucketMirror, s3: S3, tmp_path: Path) -> None:
    mirror.sync()
    s3.stop()
    started_s = time.monotonic()
    with pytest.raises(BucketUnreachable, match="Could not connect"):
        mirror.sync()
    assert time.monotonic() - started_s < 30
    assert versions(mirror) == [1, 2]
    s3.start()
    s3.upload(write_version(tmp_path / "made", "linear", 3))
    mirror.sync()
    assert versions(mirror) == [1, 2, 3]


@pytest.mark.parametrize("url", [f"s3://{BUCKET}-lost/{PREFIX}", f"s3://{BUCKET}/elsewhere"])
def test_a_bucket_or_prefix_that_does_not_exist_is_reported(s3: S3, tmp_path: Path, url: str) -> None:
    mirror = BucketMirror(open_bucket(url), tmp_path / "cache")
    with pytest.raises(BucketUnreachable, match=url):
        mirror.sync()


@pytest.mark.slow
def test_two_workers_keep_serving_while_the_bucket_changes_or_fails(s3: S3, tmp_path: Path) -> None:
    with RunningService(
        f"s3://{BUCKET}/{PREFIX}",
        workers=2,
        bucket_cache=tmp_path / "cache",
        bucket_interval_s=0.2,
        scan_interval_s=0.2,
    ) as service:

        def answers_with(version: str) -> bool:
            """Returns whether both workers answer with the version. Either worker can accept a connection."""
            url, once = "/api/v1/models/linear/classify", {"connection": "close"}
            replies = [service.client.post(url, content=image_bytes(), headers=once) for _ in range(8)]
            assert [reply.status_code for reply in replies] == [200] * 8
            return all(reply.json()["version"] == version for reply in replies)

        assert answers_with("2")
        s3.upload(write_version(tmp_path / "made", "linear", 3))
        service.wait_until(lambda: answers_with("3"))
        s3.stop()
        service.wait_for_line(event="models cannot be fetched", worker=0)
        service.wait_for_line(event="models cannot be fetched", worker=1)
        assert answers_with("3")
        s3.start()
        s3.remove(*(f"linear/3/{name}" for name in ("manifest.json", "model.onnx", "labels.txt")))
        service.wait_until(lambda: answers_with("2"))
    fetched = [line["version"] for line in service.lines if line["event"] == "version is fetched"]
    assert sorted(fetched) == ["1", "2", "3"], "one worker fetched the version, and the other used the copy"


def test_a_start_without_the_bucket_serves_what_was_downloaded_before(s3: S3, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    BucketMirror(open_bucket(f"s3://{BUCKET}/{PREFIX}"), cache).sync()
    s3.stop()
    try:
        with RunningService(f"s3://{BUCKET}/{PREFIX}", bucket_cache=cache) as service:
            assert service.client.get("/api/v1/models/linear").json()["default_version"] == "2"
            service.wait_for_line(event="models cannot be fetched")
            ready = service.client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert "Could not connect" in ready.json()["warnings"]["bucket"]
            metrics = service.client.get("/metrics").text
            assert re.search(r'^convoy_bucket_errors_total\{reason="bucket_unreachable"\} [1-9]', metrics, re.MULTILINE)
            synced = re.search(r"^convoy_bucket_synced_timestamp_seconds\{url=.*\} (\S+)$", metrics, re.MULTILINE)
            assert synced is not None
            assert time.time() - 600 < float(synced[1]) < time.time()
    finally:
        s3.start()


def test_a_batch_job_reads_its_images_and_its_model_from_the_bucket(s3: S3, tmp_path: Path) -> None:
    for at in range(20):
        s3.put(f"photos/class-{at % 4}/{at:02}.png", b"broken" if at == 7 else image_bytes(seed=at))
    url = f"s3://{BUCKET}/{PREFIX}"
    words = ["batch", f"{url}/photos", "-m", "linear", "--models", url, "-o", "r.jsonl", "--decode-threads", "2"]
    env = {**os.environ, "CONVOY_BUCKET_CACHE": str(tmp_path / "cache")}
    process = subprocess.run([CONVOY, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
    assert process.returncode == 1, process.stderr
    assert process.stdout.startswith("linear version 2: 19 classified, 1 broken.")
    files = [json.loads(line)["file"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert files == sorted(f"{url}/photos/class-{at % 4}/{at:02}.png" for at in range(20) if at != 7)
