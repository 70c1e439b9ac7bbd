"""Binds the socket and runs one worker in-process, or several under a supervisor.

Only workers import the serving code, so that the supervisor stays small and starts quickly.
"""

import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from service.api.auth.api_keys import Keyring
from service.errors import ConvoyError
from service.inference.cuda_devices import check_gpus, list_gpus, load_driver
from service.model_store.mirror import open_mirror
from service.model_store.object_store import is_url
from service.model_store.repository import Repository
from service.observability import logs
from service.server.listener import bind, bracketed
from service.settings import Settings, unknown_variables
from service.workers.supervisor import Supervisor
from service.workers.worker_status import WorkerStatusStore

EXIT_WORKER_FAILED = 3  # the same code that uvicorn uses for an application that does not start
SHARED_MEMORY = "/dev/shm"
NO_MODELS_ACTION = "Add a model as NAME/VERSION/, or name another folder with --models or CONVOY_MODELS."


def serve(settings: Settings) -> int:
    """Binds the address and serves until SIGTERM or SIGINT. Returns the exit code. Raises CannotListen, UnusableGpu.

    A single worker with an exit code other than 0 raises SystemExit.
    """
    logs.configure(settings.log_level, settings.log_format)
    for name, suggestion in unknown_variables(os.environ).items():
        fields = {"nearest": suggestion} if suggestion else {"action": "`convoy serve --help` lists the settings."}
        logs.event(logging.WARNING, "unknown setting", variable=name, **fields)
    # Reports missing GPUs, a bucket that cannot be opened and invalid keys before any worker starts.
    if settings.gpus:
        check_gpus(settings.gpus, list_gpus(load_driver()))
    open_mirror(settings)
    Keyring(settings.keys, settings.keys_file)
    _warn_without_models(settings.models)
    with (
        bind(settings.host, settings.port) as sock,
        TemporaryDirectory(prefix="convoy-", dir=_shared_memory_folder()) as folder,
    ):
        host, port = sock.getsockname()[:2]
        logs.event(
            logging.INFO,
            "starting",
            url=f"http://{bracketed(host)}:{port}",
            pid=os.getpid(),
            workers=settings.workers,
            device=settings.device,
        )
        if settings.workers == 1:
            _run_worker(settings, Path(folder), os.getpid(), sock, 0)
            return 0
        target = partial(_run_supervised_worker, settings, Path(folder), os.getpid())
        status_store = WorkerStatusStore(Path(folder), workers=settings.workers)
        drain_timeout_s = settings.effective_drain_timeout_s
        return Supervisor(
            target,
            sock,
            status_store,
            settings.workers,
            drain_timeout_s,
            settings.gpus,
            settings.worker_timeout_s,
            settings.stop_delay_s,
        ).run()


def _warn_without_models(models: str) -> None:
    """Logs a warning if the folder of models is missing or empty. The service starts anyway, and waits for models."""
    if is_url(models):
        return
    folder = Path(models).absolute()
    try:
        if Repository(folder).models():
            return
        reason = "This folder is empty." if folder.is_dir() else "This folder does not exist."
    except OSError as error:
        reason = f"This folder cannot be read: {error.strerror}."
    logs.event(logging.WARNING, "no models", folder=str(folder), reason=reason, action=NO_MODELS_ACTION)


def _shared_memory_folder() -> str | None:
    """Returns the parent of the folder that workers share; None means the default temporary folder.

    Workers rename small files there every second, which can take seconds on a busy disk and block the event loop, so a
    file system in memory is used if one exists.
    """
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else None


def _run_worker(settings: Settings, folder: Path, parent_pid: int, sock: socket.socket, worker_id: int) -> None:
    from service.server.worker import run_worker

    run_worker(settings, folder, parent_pid, sock, worker_id)


def _run_supervised_worker(
    settings: Settings, folder: Path, parent_pid: int, sock: socket.socket, worker_id: int
) -> None:
    """Runs a worker in a separate process, and logs the error that ends it, because the supervisor cannot see it."""
    logs.configure(settings.log_level, settings.log_format, worker=worker_id)
    try:
        _run_worker(settings, folder, parent_pid, sock, worker_id)
    except Exception as error:
        reason = f"{error.full_message} {error.hint}" if isinstance(error, ConvoyError) else repr(error)
        logs.logger.critical("worker failed", exc_info=True, extra={"fields": {"reason": reason}})
        sys.exit(EXIT_WORKER_FAILED)
