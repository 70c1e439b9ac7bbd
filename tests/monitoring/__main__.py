"""Runs Debian's Prometheus with the shipped configuration against real services: `python -m tests.monitoring CHECK`.

`dashboard` (four minutes): under a normal load, every query of the dashboard must return a number, and no alert may
fire. Under overload, ConvoyOverloaded must fire, and no other alert. `alerts` (20 minutes): causes every alert. In each
service, exactly the expected alerts must fire. `healthy` (an hour): under mixed traffic that the service handles
correctly, no alert may fire.

`alerts` and `healthy` write their outcomes to results.json, from which `make docs` writes the table of alerts in
docs/operations.md. Exits with 1 if a check failed, and with 2 if Prometheus is missing.
"""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from tests.bench.report.markdown import Transcript
from tests.monitoring.cause_alerts import check_alerts
from tests.monitoring.dashboard import check_dashboard
from tests.monitoring.healthy import check_healthy_traffic


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.monitoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("check", nargs="?", choices=["dashboard", "alerts", "healthy"], default="dashboard")
    parser.add_argument("--report", type=Path, help="Markdown file with a section `monitoring` for `dashboard`")
    parser.add_argument("--only", help="namespace of the only scenario of `alerts` to run, see scenarios.py")
    parser.add_argument("--minutes", type=float, default=60, help="duration of the healthy traffic")
    parser.add_argument("--photos", type=Path, help="folder of photographs for ResNet-50; default: CONVOY_DATA/photos")
    options = parser.parse_args()
    if not shutil.which("prometheus"):
        print("SKIPPED: prometheus is not installed (Debian package prometheus).", file=sys.stderr)
        return 2
    transcript = Transcript()
    if options.check == "alerts":
        problems = check_alerts(options.only)
    elif options.check == "healthy":
        problems = check_healthy_traffic(options.photos, options.minutes)
    else:
        problems = check_dashboard(transcript)
    for problem in problems:
        print(f"FAILED: {problem}")
    if problems:
        return 1
    print("PASSED")
    if options.report:
        transcript.write(options.report, "monitoring", shlex.join(["python", "-m", "tests.monitoring", *sys.argv[1:]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
