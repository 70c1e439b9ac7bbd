"""Starts a service and loads it with locust: `python -m tests.load`, or `make load`.

Exits with 1 if a request failed, a response was wrong or a limit was exceeded, and with 2 if nothing could be measured.
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
from tests.load.load_profile import LoadProfile
from tests.load.run_locust import locust_command, run_locust

DIGITS = 200
PEAK_SEARCH_S = 10
ERRORS_SHOWN = 10
WEB_PAGE = "http://127.0.0.1:8089"


def main() -> int:
    args = _arguments()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        digits = args.out / "digits.json"
        digit_images.save_digits(digit_images.known_digits(DIGITS, args.models, args.model), digits)
        with run_convoy(args.models, args.out / "service.log") as service:
            profile = LoadProfile(args.model, digits, args.out / "figures.json", args.users, args.seconds)
            return _show_page(service.url, profile, args) if args.ui else _load(service.url, profile, args)
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _load(url: str, profile: LoadProfile, args: argparse.Namespace) -> int:
    if args.of_peak:
        profile = _at_constant_rate(url, profile, args)
    shape_name = "ramp, plateau, spike, plateau" if args.shape else "constant"
    print(f"{profile.users} users for {profile.seconds} s ({shape_name}), {digit_images.source()}:", flush=True)
    results = run_locust(url, profile, args.out / "load", args.classes, shaped=args.shape)
    print("\n".join(["", load_results.table(results.rows), *results.errors[:ERRORS_SHOWN], ""]))
    print(f"report: {args.out / 'load.html'}; figures: {profile.figures}, {args.out / 'load_stats.csv'} and others")
    problems = load_results.problems(results, load_results.Bounds(args.p99_ms, args.p99_over_p50))
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print(f"PASSED: no request failed, every response was correct, and every p99 is within {args.p99_ms:g} ms.")
    return int(bool(problems))


def _at_constant_rate(url: str, profile: LoadProfile, args: argparse.Namespace) -> LoadProfile:
    """Measures the peak rate, and returns the profile with a constant rate that is a fraction of the peak."""
    print("measuring the peak:", flush=True)
    search = replace(profile, seconds=PEAK_SEARCH_S)
    peak = run_locust(url, search, args.out / "peak", args.classes, shaped=False).rows[-1].requests_per_s
    requests_per_s_of_user = args.of_peak * peak / profile.users
    rate = f"{requests_per_s_of_user:.2f} requests/s per user"
    print(f"peak {peak:.0f} requests/s; now {args.of_peak:.0%} of the peak, {rate}")
    return replace(profile, requests_per_s_of_user=requests_per_s_of_user)


def _show_page(url: str, profile: LoadProfile, args: argparse.Namespace) -> int:
    print(f"locust's page: {WEB_PAGE} (stop with Ctrl-C)", flush=True)
    options = [f"--users={profile.users}", "--web-host=127.0.0.1", f"--web-port={WEB_PAGE.rpartition(':')[2]}"]
    return subprocess.run(
        **locust_command(url, profile, [*options, "--class-picker", *args.classes], shaped=args.shape)
    ).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.load", description=__doc__)
    add = parser.add_argument
    add("classes", nargs="*", help="user classes of tests/load/locustfile.py; default: all")
    add("--users", type=int, default=32, help="concurrent users (default: %(default)s)")
    add("--seconds", type=int, default=30, help="duration (default: %(default)s)")
    add("--p99-ms", type=float, default=500.0, help="limit of the p99 of every kind of request (default: %(default)s)")
    add("--p99-over-p50", type=float, help="limit of p99 / p50 over all requests")
    add(
        "--of-peak",
        type=float,
        help="measure the peak, then load at a constant rate that is this fraction of the peak, such as 0.7",
    )
    add("--shape", action="store_true", help="ramp, plateau, spike, plateau instead of a constant number of users")
    add("--ui", action="store_true", help="show locust's web page instead of a run with limits")
    add("--models", type=Path, default=Settings().models, help="folder of models (default: %(default)s)")
    add("--model", default="mnist-lenet5", help="a model for digits (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/load"), help="folder of reports and logs (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
