"""What runs beside the requests, from the application's start to its end."""

import asyncio
from pathlib import Path

import pytest

from service import malloc
from service.app import create_app
from service.model_store.desired_state import StateFile
from service.settings import Settings
from service.workers.worker_status import WorkerStatusStore


def test_memory_is_given_back_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        was_trimmed = asyncio.Event()
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
        monkeypatch.setattr(malloc, "TRIM_INTERVAL_S", 0.01)
        monkeypatch.setattr(malloc, "trim", lambda: call_soon(was_trimmed.set))
        app = create_app(
            Settings(models=str(tmp_path)), WorkerStatusStore(tmp_path), StateFile(tmp_path / "state.json")
        )
        async with app.router.lifespan_context(app), asyncio.timeout(30):
            await was_trimmed.wait()

    asyncio.run(scenario())
