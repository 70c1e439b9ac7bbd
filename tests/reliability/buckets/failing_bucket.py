"""An S3 bucket behind a proxy that injects one kind of fault after another, while versions are uploaded and removed.

Independent of services. A service gets the bucket's URL and the environment variables for reading it.
"""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.session
from moto.server import ThreadedMotoServer

BUCKET, PREFIX = "convoy-soak", "models"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
FAULTS = ("closes", "error", "denied", "hangs", "drips", "truncates", "damages")
DRIP_INTERVAL_S = 0.2
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class FaultyProxy(ThreadingHTTPServer):
    """Forwards requests to the bucket. While `fault` is one of FAULTS, requests whose path contains `failing_path`
    fail."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = host, port
        self.fault, self.failing_path = "", ""
        self.is_over = threading.Event()
        self.injected: Counter[str] = Counter()

    def inject(self, fault: str, failing_path: str) -> None:
        """Replaces the current fault. An empty `fault` forwards all requests."""
        self.is_over.set()
        self.is_over = threading.Event()
        self.fault, self.failing_path = fault, failing_path

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the errors when clients give up and close their connection."""


class _Forward(BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fault = self.server.fault if self.server.failing_path in self.path else ""
        if fault:
            self.server.injected[fault] += 1
        if fault == "hangs":
            self.server.is_over.wait()
        if fault in ("closes", "hangs"):
            self.close_connection = True
        elif fault in ("error", "denied"):
            status, body = (500, b"") if fault == "error" else (403, DENIED)
            self._begin(status, [("Content-Length", str(len(body)))])
            self.wfile.write(b"" if self.command == "HEAD" else body)
        else:
            self._forward(fault)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Discards log messages, because the report contains the counts."""

    def _forward(self, fault: str) -> None:
        connection = http.client.HTTPConnection(*self.server.target, timeout=30)
        connection.request(self.command, self.path, headers=dict(self.headers))
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        self._begin(reply.status, [item for item in reply.getheaders() if item[0].lower() != "transfer-encoding"])
        if self.command == "HEAD":
            return
        if fault == "damages" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault == "truncates":
            body = body[: len(body) // 2]
            self.close_connection = True
        if fault == "drips":
            self._drip(body)
        else:
            self.wfile.write(body)

    def _drip(self, body: bytes) -> None:
        for position in range(len(body)):
            if self.server.is_over.wait(DRIP_INTERVAL_S):
                break
            self.wfile.write(body[position : position + 1])
        self.close_connection = True

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()


class FailingBucket:
    """The bucket with its proxy.

    Readers that use `environment` experience the faults; readers that use `direct_environment` do not. Uploads and
    removals never fail.
    """

    def __init__(self, proxy: FaultyProxy, endpoint: str) -> None:
        self.proxy = proxy
        self.url = f"s3://{BUCKET}/{PREFIX}"
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}
        self.direct_environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
        session = botocore.session.Session()
        session.set_credentials("test", "test")
        self._client: Any = session.create_client("s3", "us-east-1", endpoint_url=endpoint)
        self._client.create_bucket(Bucket=BUCKET)

    def upload(self, folder: Path, model: str, version: int) -> None:
        """Uploads a version. The manifest is uploaded last."""
        for file in sorted(folder.iterdir(), key=lambda file: file.name == "manifest.json"):
            self.put(file, model, version)

    def put(self, file: Path, model: str, version: int) -> None:
        """Uploads one file of a version."""
        self._client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{model}/{version}/{file.name}", Body=file.read_bytes())

    def remove(self, model: str, version: int) -> None:
        """Removes a version. The manifest is removed first."""
        prefix = f"{PREFIX}/{model}/{version}/"
        entries = self._client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        keys = [entry["Key"] for entry in entries]
        for key in sorted(keys, key=lambda key: not key.endswith("manifest.json")):
            self._client.delete_object(Bucket=BUCKET, Key=key)

    def empty(self) -> None:
        for entry in self._client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self._client.delete_object(Bucket=BUCKET, Key=entry["Key"])


@contextmanager
def failing_bucket() -> Iterator[FailingBucket]:
    """Runs the bucket and its proxy in threads of this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultyProxy(host, port)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield FailingBucket(proxy, f"http://{host}:{port}")
    finally:
        proxy.inject("", "")
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        server.stop()
