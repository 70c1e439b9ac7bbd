"""The progress of a graceful shutdown, and its end.

The server writes the progress and the HTTP side reads it. The server and the supervisor decide when to stop and what to
wait for.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from service.exit_codes import EXIT_PARTIAL
from service.observability import logs

EXIT_REQUESTS_LOST = EXIT_PARTIAL
"""Exit code of a service that stopped before it had answered every request that it had accepted."""
LOST_REQUESTS_ACTION = (
    "Clients of these requests received 503 and can retry. Raise CONVOY_DRAIN_TIMEOUT_S, and the orchestrator's "
    "termination grace period."
)


@dataclass(slots=True)
class ShutdownState:
    """Progress of a shutdown.

    First `is_draining`: a stop was requested, and readiness fails. Then `is_closing`: no client can connect, and every
    response closes its connection. (If responses closed connections earlier, clients would reconnect and lose the new
    connection.) Near the end of the drain timeout `is_rejecting`: the remaining requests are cancelled, answered with
    503, and counted in `lost_requests`. At the end `is_model_running`: a model is still running a batch that no client
    waits for.
    """

    is_draining: bool = False
    is_closing: bool = False
    is_rejecting: bool = False
    is_model_running: bool = False
    lost_requests: int = 0


def force_exit_now(folder: Path | None, code: int, message: str, **fields: str) -> NoReturn:
    """Removes `folder`, if given, and ends the process immediately. Call only if no client waits for the aborted
    work."""
    logs.event(logging.WARNING, message, **fields)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)
