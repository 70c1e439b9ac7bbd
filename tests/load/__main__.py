"""Starts a service and loads it with locust: `python -m tests.load`, or `make load`.

Ends with 1 when a request failed, an answer was wrong or a bound was passed, and with 2 when nothing could be measured.
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from service.settings import Settings
from tests.bench.convoy_process import run_convoy
from tests.bench.errors import CannotMeasure
from tests.load import digit_images, load_results
from tests.load.load_profile import Orders
from tests.load.run_locust import locust, run_locust

DIGITS = 200
PEAK_SEARCH_S = 10
ERRORS_SHOWN = 10
WEB_PAGE = "http://127.0.0.1:8089"


def main() -> int:
    args = _arguments()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        digits = args.out / "digits.json"
        digit_images.save(digit_images.known_digits(DIGITS, args.models, args.model), digits)
        with run_convoy(args.models, args.out / "service.log") as service:
            orders = Orders(args.model, digits, args.out / "figures.json", args.users, args.seconds)
            return _show_page(service.url, orders, args) if args.ui else _load(service.url, orders, args)
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _load(url: str, orders: Orders, args: argparse.Namespace) -> int:
    if args.of_peak:
        orders = _paced(url, orders, args)
    how = "ramp, plateau, spike, plateau" if args.shape else "constant"
    print(f"{orders.users} users for {orders.seconds} s ({how}), {digit_images.source()}:", flush=True)
    measured = run_locust(url, orders, args.out / "load", args.classes, shaped=args.shape)
    print("\n".join(["", load_results.table(measured.rows), *measured.errors[:ERRORS_SHOWN], ""]))
    print(f"report: {args.out / 'load.html'}; figures: {orders.figures}, {args.out / 'load_stats.csv'} and others")
    found = load_results.problems(measured, load_results.Bounds(args.p99_ms, args.p99_over_p50))
    for problem in found:
        print(f"FAILED: {problem}")
    if not found:
        print(f"PASSED: no request failed, every answer was right, every p99 is within {args.p99_ms:g} ms.")
    return int(bool(found))


def _paced(url: str, orders: Orders, args: argparse.Namespace) -> Orders:
    """The same orders at a constant rate: that part of the peak, which is searched first."""
    print("looking for the peak:", flush=True)
    search = replace(orders, seconds=PEAK_SEARCH_S)
    peak = run_locust(url, search, args.out / "peak", args.classes, shaped=False).rows[-1].requests_per_s
    pace = args.of_peak * peak / orders.users
    print(f"peak {peak:.0f} requests/s; now {args.of_peak:.0%} of it, {pace:.2f} requests/s of each user")
    return replace(orders, requests_per_s_of_user=pace)


def _show_page(url: str, orders: Orders, args: argparse.Namespace) -> int:
    print(f"locust's page: {WEB_PAGE} (end with Ctrl-C)", flush=True)
    options = [f"--users={orders.users}", "--web-host=127.0.0.1", f"--web-port={WEB_PAGE.rpartition(':')[2]}"]
    return subprocess.run(
        **locust(url, orders, [*options, "--class-picker", *args.classes], shaped=args.shape)
    ).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.load", description=__doc__)
    add = parser.add_argument
    add("classes", nargs="*", help="user classes of tests/load/locustfile.py; default: all")
    add("--users", type=int, default=32, help="users at the same time (default: %(default)s)")
    add("--seconds", type=int, default=30, help="how long (default: %(default)s)")
    add("--p99-ms", type=float, default=500.0, help="bound on p99 of every kind of request (default: %(default)s)")
    add("--p99-over-p50", type=float, help="bound on p99 / p50 of all requests together")
    add("--of-peak", type=float, help="search the peak first, then keep a constant rate of so much of it, as 0.7")
    add("--shape", action="store_true", help="ramp, plateau, spike, plateau instead of a constant number of users")
    add("--ui", action="store_true", help="locust's web page instead of a bounded run")
    add("--models", type=Path, default=Settings().models, help="folder of models (default: %(default)s)")
    add("--model", default="mnist-lenet5", help="the model, which must know digits (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/load"), help="folder of reports and logs (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
