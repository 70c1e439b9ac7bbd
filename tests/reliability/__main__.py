"""Measures reliability under faults, over time and with malformed input: python -m tests.reliability COMMAND --help.

Each command writes its figures into its section of tests/reliability/README.md, and exits with 1 if a requirement was
not met.
"""

import argparse
import sys

from tests.bench.errors import CannotMeasure
from tests.reliability import memory_growth, reproducibility, soak
from tests.reliability.attacks import measure_attacks
from tests.reliability.buckets import many_versions
from tests.reliability.fuzz import run_fuzzer
from tests.reliability.http_clients import send_early_answered
from tests.reliability.lost_requests import find_lost_requests
from tests.reliability.malformed_requests import send_malformed

COMMANDS = (
    find_lost_requests.register,
    soak.register,
    memory_growth.register,
    many_versions.register,
    reproducibility.register,
    measure_attacks.register,
    send_malformed.register,
    send_early_answered.register,
    run_fuzzer.register,
)
"""Each module registers its command with a default `run`, a function that takes the parsed arguments and returns the
exit code."""


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.reliability", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for register in COMMANDS:
        register(commands)
    args = parser.parse_args()
    try:
        return int(args.run(args))
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
