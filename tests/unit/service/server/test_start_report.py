"""The end of start-up is logged once, with addresses that a browser can open and the models that are ready."""

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn

from service.server.connection_limits import LimitedProtocol
from service.server.limits import ConnectionLimits
from service.server.listener import bind
from service.server.serve import _warn_without_models
from service.server.start_report import local_url, log_start
from service.server.worker import WorkerServer
from service.settings import Settings
from service.workers.shutdown import ShutdownState
from tests.support.model_versions import write_version
from tests.unit.service.server.test_worker import RecordingCounts, app


class LoadingRegistry:
    """A registry with the given models, whose first attempt to load them ends when the test allows it."""

    def __init__(self, *models: str) -> None:
        self.has_tried_all = False
        self._models = models

    def is_unavailable(self) -> bool:
        return False

    def versions_by_model(self) -> list[list[SimpleNamespace]]:
        return [[SimpleNamespace(model=name)] for name in self._models]


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = record.fields  # type: ignore[attr-defined]
    return fields


@pytest.mark.parametrize(
    ("family", "host", "written"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::", "[::1]"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(family: int, host: str, written: str) -> None:
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        assert local_url(sock, "/convoy") == f"http://{written}:{sock.getsockname()[1]}/convoy"


def test_addresses_and_models_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "convoy")
    log_start("http://127.0.0.1:8000", LoadingRegistry("mnist", "pets"))  # type: ignore[arg-type]
    log_start("http://127.0.0.1:8000", LoadingRegistry())  # type: ignore[arg-type]
    with_models, without = caplog.records
    assert (with_models.message, without.message) == ("ready", "started without a model")
    assert fields_of(with_models) == {
        "api": "http://127.0.0.1:8000/api/v1/models",
        "playground": "http://127.0.0.1:8000/",
        "documentation": "http://127.0.0.1:8000/docs",
        "models": ["mnist", "pets"],
    }


def test_a_worker_opens_its_port_once_and_not_before_its_models_were_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "convoy")
    registry, counts = LoadingRegistry("mnist"), RecordingCounts(tmp_path / "connections", 0, 1)
    protocol = partial(LimitedProtocol, ConnectionLimits.from_settings(Settings()), lambda status: None)
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    config.load()
    server = WorkerServer(config, ShutdownState(), registry, 0, counts, 33.0, url="http://127.0.0.1:8000")  # type: ignore[arg-type]
    server.lifespan = config.lifespan_class(config)

    async def start(sock: socket.socket) -> None:
        await server.startup([sock])
        await server.on_tick(1)
        assert caplog.messages == []
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*sock.getsockname())
        registry.has_tried_all = True
        await server.on_tick(2)
        await server.on_tick(3)
        assert caplog.messages == ["accepting connections", "ready"]
        _, writer = await asyncio.open_connection(*sock.getsockname())
        await counts.until(1)
        writer.close()
        await counts.until(0)
        await server.shutdown([sock])

    with bind("127.0.0.1", 0) as sock:
        asyncio.run(start(sock))


def test_a_folder_without_models_is_reported_with_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    write_version(tmp_path / "full", "linear", 1)
    for name in ("missing", "empty", "full"):
        _warn_without_models(str(tmp_path / name))
    _warn_without_models("s3://bucket/models")
    missing, empty = map(fields_of, caplog.records)
    assert missing["folder"] == str(tmp_path / "missing")
    assert missing["reason"] == "This folder does not exist."
    assert empty["folder"] == str(tmp_path / "empty")
    assert empty["reason"] == "This folder is empty."
    assert "CONVOY_MODELS" in str(empty["action"])
