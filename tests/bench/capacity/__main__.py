"""`python -m tests.bench.capacity`: measures one replica, simulates many, and writes the result to docs/capacity.md."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from service.settings import Settings
from tests.bench.capacity.measure_replica import Plan, measure, section
from tests.bench.errors import CannotMeasure
from tests.bench.report import markdown

REPORT = Path("docs/capacity.md")


def main(arguments: Sequence[str]) -> int:
    plan, file = _arguments(arguments)
    try:
        results = measure(plan)
        content = section(results, shlex.join(["python", "-m", "tests.bench.capacity", *arguments]))
        if file is not None:
            markdown.replace_section(file, "capacity", content)
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"\n{content}\n")
    for name in results.voids:
        print(f"VOID: {name}.", file=sys.stderr)
    return int(bool(results.voids))


def _arguments(arguments: Sequence[str]) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser("python -m tests.bench.capacity", description=__doc__)
    add = parser.add_argument
    add("--models", type=Path, default=Path(Settings().models), help="folder of models (default: %(default)s)")
    add("--model", default="mnist-lenet5", help="default: %(default)s")
    add("--images", type=Path, help="folder of images to send; default: digits, or CONVOY_DATA/photos")
    add("--rounds", type=int, default=3, help="number of rounds; results are medians over them (default: %(default)s)")
    add("--seconds", type=float, default=4.0, help="duration of each load (default: %(default)s)")
    add("--report", type=Path, default=REPORT, help="Markdown file for the results (default: %(default)s)")
    add("--print-only", action="store_true", help="print the results and write no report")
    args = parser.parse_args(arguments)
    plan = Plan(args.models, args.model, args.images, args.rounds, args.seconds)
    return plan, None if args.print_only else args.report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
