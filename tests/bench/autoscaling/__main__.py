"""`python -m tests.bench.autoscaling`: simulates the autoscalers with the recorded metrics of one pod, and writes the
result to docs/capacity.md. With `--record` the metrics are recorded again, which takes six minutes on two idle cores.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.autoscaling import record, simulate
from tests.bench.errors import CannotMeasure
from tests.bench.report import markdown

REPORT = Path("docs/capacity.md")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.autoscaling", description=__doc__)
    parser.add_argument("--record", action="store_true", help="record the metrics again, into recorded.json")
    parser.add_argument("--photos", type=Path, help="folder of photographs for ResNet-50; default: CONVOY_DATA/photos")
    parser.add_argument("--report", type=Path, default=REPORT, help="Markdown file (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.record:
            record.write(record.record(options.photos))
        command = shlex.join(["python", "-m", "tests.bench.autoscaling", "--record"])
        markdown.replace_section(options.report, "autoscaling", simulate.section(command))
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
