"""Reports progress from the locust process: a line every two seconds, and the exact figures at the end.

locust writes its own CSV files periodically, so they lack the last seconds.
"""

import json
import logging
import time
from typing import Any

import gevent
from locust import events

from tests.load.load_profile import LoadProfile
from tests.load.load_results import ALL

REPORT_INTERVAL_S = 2.0


@events.test_start.add_listener
def start(environment: Any, **_: Any) -> None:
    if environment.web_ui is None:
        # locust prints its wide tables twice, so they are disabled; the runner prints one table.
        logging.getLogger("locust.stats_logger").setLevel(logging.ERROR)
        gevent.spawn(_report, environment, time.monotonic())


@events.quitting.add_listener
def write_figures(environment: Any, **_: Any) -> None:
    stats = environment.stats
    rows = [_row(entry.name, entry) for _, entry in sorted(stats.entries.items())] + [_row(ALL, stats.total)]
    errors = [f"{error.occurrences} x {error.name}: {error.error}" for error in stats.errors.values()]
    LoadProfile.from_environment().figures.write_text(json.dumps({"rows": rows, "errors": errors}, indent=1))


def _report(environment: Any, started_s: float) -> None:
    while True:
        gevent.sleep(REPORT_INTERVAL_S)
        total, users = environment.stats.total, environment.runner.user_count
        p99_ms = total.get_response_time_percentile(0.99) or 0
        print(
            f"{time.monotonic() - started_s:5.0f} s {users:5} users {total.current_rps:7.0f} requests/s"
            f"   p99 so far {p99_ms:5.0f} ms   {total.num_failures} failed",
            flush=True,
        )


def _row(name: str, entry: Any) -> dict[str, Any]:
    return {
        "name": name,
        "requests": entry.num_requests,
        "failures": entry.num_failures,
        "requests_per_s": entry.total_rps,
        "p50_ms": float(entry.get_response_time_percentile(0.5) or 0),
        "p99_ms": float(entry.get_response_time_percentile(0.99) or 0),
    }
