"""Publishes versions of one model in a bucket, one per round, with a different fault in each round.

At the end of a round the bucket is complete again. Independent of services, but provides the content that a service
must serve at the end.
"""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

from service.model_store.manifest import MANIFEST_FILE
from service.model_store.repository import Repository
from tests.reliability.buckets.failing_bucket import FAULTS, FailingBucket
from tests.reliability.buckets.small_disk import SmallDisk

KEPT_VERSIONS = 3
FULL_DISK = "full cache disk"


class FaultyPublisher:
    """Publishes copies of `source` that differ only in their manifests, so that all have the same predictions."""

    def __init__(
        self, bucket: FailingBucket, source: Path, model: str, workspace: Path, disk: SmallDisk | None, every_s: float
    ) -> None:
        self._bucket = bucket
        self._source = source
        self._model = model
        self._repository = Repository(workspace)
        self._disk = disk
        self._half_s = every_s / 2
        self._is_stopped = threading.Event()
        # (name, function) of each fault. The full disk comes first, so that short runs cover it as well.
        self._faults: list[tuple[str, Callable[[], None]]] = [
            *([(FULL_DISK, self._fill_disk)] if disk is not None else []),
            *((fault, partial(self._fail_requests, fault)) for fault in FAULTS),
            ("replaced in place", self._replace_in_place),
            ("incomplete upload", self._upload_incompletely),
            ("emptied bucket", self._empty),
            ("slow copy", self._copy_slowly),
        ]
        self.newest = 0
        self.rounds: Counter[str] = Counter()
        """Number of rounds by fault."""
        self._begin_version()
        self._upload(self.newest)

    @property
    def digest(self) -> str:
        """Returns the digest of the newest version's content."""
        return self._repository.open(self._model, self.newest).digest

    def run(self) -> None:
        """Publishes versions until `stop` is called. Blocks until the bucket is complete."""
        for fault, publish in cycle(self._faults):
            if self._is_stopped.wait(self._half_s):
                return
            self._begin_version()
            self.rounds[fault] += 1
            try:
                publish()
                self._is_stopped.wait(self._half_s)
            finally:
                self._make_whole()

    def stop(self) -> None:
        self._is_stopped.set()

    def _begin_version(self) -> None:
        self.newest += 1
        shutil.copytree(self._source, self._folder(self.newest))
        self._change_content(1)

    def _change_content(self, revision: int) -> None:
        manifest = self._folder(self.newest) / MANIFEST_FILE
        content = json.loads(manifest.read_bytes())
        content["provenance"]["source"] = f"version {self.newest}, revision {revision}"
        manifest.write_text(json.dumps(content))

    def _folder(self, version: int) -> Path:
        return self._repository.root / self._model / str(version)

    def _upload(self, version: int) -> None:
        self._bucket.upload(self._folder(version), self._model, version)

    def _make_whole(self) -> None:
        """Ends the fault, and makes the bucket contain exactly the newest versions, with all their files."""
        self._bucket.proxy.inject("", "")
        if self._disk is not None:
            self._disk.clear()
        versions = self._repository.versions(self._model)
        for version in versions[-KEPT_VERSIONS:]:
            self._upload(version)
        for version in versions[:-KEPT_VERSIONS]:
            self._bucket.remove(self._model, version)
            shutil.rmtree(self._folder(version))

    def _fail_requests(self, fault: str) -> None:
        """Makes requests for the new version fail, and in every second round the requests for all versions."""
        self._bucket.proxy.inject(fault, f"/{self._model}/{self.newest}/" if self.newest % 2 else "")
        self._upload(self.newest)

    def _fill_disk(self) -> None:
        assert self._disk is not None
        self._disk.fill()
        self._upload(self.newest)

    def _replace_in_place(self) -> None:
        self._upload(self.newest)
        self._is_stopped.wait(self._half_s)
        self._change_content(2)
        self._upload(self.newest)

    def _upload_incompletely(self) -> None:
        for file in self._files_manifest_first()[:-1]:
            self._bucket.put(file, self._model, self.newest)

    def _empty(self) -> None:
        self._upload(self.newest)
        self._bucket.empty()

    def _copy_slowly(self) -> None:
        files = self._files_manifest_first()
        for file in files:
            self._bucket.put(file, self._model, self.newest)
            self._is_stopped.wait(self._half_s / len(files))

    def _files_manifest_first(self) -> list[Path]:
        """Returns the version's files. The manifest comes first."""
        return sorted(self._folder(self.newest).iterdir(), key=lambda file: (file.name != MANIFEST_FILE, file.suffix))
