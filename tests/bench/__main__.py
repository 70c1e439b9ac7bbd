"""Measures speed: `make bench`, `make bench-peers` and `make bench-overload` write a report.

Exits with 1 if a load was void (a request failed, or a constant rate was not kept), and with 2 if nothing could be
measured.
"""

import argparse
import os
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from service.hardware import usable_cores
from service.settings import Settings
from tests.bench import compare_checkouts, compare_peers, photographs, throughput
from tests.bench.decoding import jpeg_cost, jpeg_libraries, paired_loads, reduced_scale
from tests.bench.decoding.phone_photos import parse_size, photos_folder
from tests.bench.errors import CannotMeasure
from tests.bench.overload import run as overload_run
from tests.bench.peers.environments import PACKAGES, set_up
from tests.bench.report import markdown, overload_section, sections

REPORT = Path("tests/bench/README.md")
BENCHMARKS = Path("docs/benchmarks.md")
CONNECTIONS = (1, 8, 32, 128)
P = TypeVar("P")


def main() -> int:
    args = _arguments()
    try:
        voids = int(args.run(args))
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return int(voids > 0)


def _plan(kind: type[P], args: argparse.Namespace) -> P:
    """Returns the plan of a command, whose fields are the command's options."""
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def _throughput(args: argparse.Namespace) -> int:
    from tests.bench.report import plots

    results = throughput.measure(_plan(throughput.Plan, args), _print_progress)
    image = args.report.with_name("throughput.svg")
    plots.throughput(results, image)
    content = sections.throughput(results, _command(), image.name)
    markdown.replace_section(args.report, "alone", content)
    return _finish(content, results.voids(), args.report)


def _compare_peers(args: argparse.Namespace) -> int:
    from tests.bench.report import plots

    results = compare_peers.compare(_plan(compare_peers.Plan, args), _print_progress)
    image = args.report.with_name("peers.svg")
    plots.peers(results, image)
    content = sections.peers(results, _command(), image.name)
    markdown.replace_section(args.report, "peers", content)
    return _finish(content, results.voids(), args.report)


def _overload(args: argparse.Namespace) -> int:
    results = overload_run.measure(_plan(overload_run.Plan, args), _print_progress)
    content = overload_section.overload(
        results.environment, results.excess, results.stops, results.interferences, _command()
    )
    markdown.replace_section(args.report, "overload", content)
    return _finish(content, results.voids(), args.report)


def _compare_checkouts(args: argparse.Namespace) -> int:
    plan = _plan(compare_checkouts.Plan, args)
    results = compare_checkouts.measure(plan, _print_progress)
    _print_progress("\n" + markdown.table(compare_checkouts.HEAD, compare_checkouts.rows(results, plan)))
    return _report_voids(results.voids())


def _jpeg_scale(args: argparse.Namespace) -> int:
    if not (data := os.environ.get("CONVOY_DATA")):
        raise CannotMeasure("CONVOY_DATA is not set: set it to the folder that contains imagenette2-160/.")
    plan = reduced_scale.Plan(
        args.models, args.model, Path(data) / "imagenette2-160", args.photos, args.count, args.size
    )
    content, is_within_limit = reduced_scale.measure(plan, _print_progress)
    content = f"{content} Command: `{_command()}`."
    markdown.replace_section(args.report, "jpeg-scale", content)
    voids = (
        [] if is_within_limit else [f"the accuracies differ by more than {reduced_scale.MAX_DIFFERENCE_POINTS} points"]
    )
    return _finish(content, voids, args.report)


def _jpeg_libraries(args: argparse.Namespace) -> int:
    return _write(jpeg_libraries.measure(photos_folder(), _print_progress), "jpeg-libraries", args.report)


def _jpeg_cost(args: argparse.Namespace) -> int:
    return _write(jpeg_cost.measure(photos_folder(), _print_progress), "jpeg-cost", args.report)


def _decoding(args: argparse.Namespace) -> int:
    plan = paired_loads.Plan(args.models, photos_folder(), args.rounds)
    return _write(paired_loads.measure(plan, _print_progress), "decoding", args.report)


def _write(content: str, section: str, report: Path) -> int:
    content = f"{content} Command: `{_command()}`."
    markdown.replace_section(report, section, content)
    return _finish(content, [], report)


def _photographs(args: argparse.Namespace) -> int:
    results = photographs.measure(_plan(photographs.Plan, args), _print_progress)
    content = sections.photographs(results, _command())
    markdown.replace_section(args.report, "photographs", content)
    return _finish(content, results.voids(), args.report)


def _set_up(args: argparse.Namespace) -> int:
    set_up(args.peers, args.python)
    return 0


def _finish(content: str, voids: list[str], file: Path) -> int:
    print(f"\n{content}\n\nwritten into {file}")
    return _report_voids(voids)


def _report_voids(voids: list[str]) -> int:
    for name in voids:
        print(f"VOID: {name}.", file=sys.stderr)
    return len(voids)


def _print_progress(text: str) -> None:
    print(text, flush=True)


def _command() -> str:
    return shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="Convoy alone")
    run.set_defaults(run=_throughput)
    run.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS, help="default: 1 8 32 128")
    peers = commands.add_parser("peers", help="compare Convoy with other servers; installs missing servers")
    peers.set_defaults(run=_compare_peers)
    peers.add_argument("--connections", type=int, default=32, help="default: %(default)s")
    peers.add_argument("--only", nargs="+", default=(), help="names of loads, such as 'v2 json'; default: all")
    over = commands.add_parser("overload", help="load Convoy with more requests than it can serve")
    over.set_defaults(run=_overload)
    over.add_argument("--models", type=Path, default=Settings().models, help="folder with mnist-lenet5")
    over.add_argument("--parts", nargs="+", choices=overload_run.PARTS, default=overload_run.PARTS, help="default: all")
    large = commands.add_parser("photographs", help="compare Convoy serving ResNet-50 with a loop without a service")
    large.set_defaults(run=_photographs)
    large.add_argument("--connections", type=int, default=32, help="default: %(default)s")
    pair = commands.add_parser("pair", help="compare the speed of several checkouts of Convoy; writes no report")
    pair.set_defaults(run=_compare_checkouts, rounds=10, seconds=2.0)
    pair.add_argument(
        "checkouts",
        type=Path,
        nargs="+",
        metavar="CHECKOUT",
        help="checkouts, each with its own .venv; the others are compared with the first",
    )
    pair.add_argument("--connections", type=int, default=32, help="default: %(default)s")
    pair.add_argument("--only", nargs="+", default=(), help="names of loads, such as 'v2 json'; default: all")
    pair.add_argument(
        "--photo-size", type=parse_size, metavar="WxH", help="resize the images to this size, such as 4032x3024"
    )
    by_library = commands.add_parser(
        "jpeg-libraries", help="compare the speed and pixels of libraries that decode JPEGs"
    )
    by_library.set_defaults(run=_jpeg_libraries)
    by_library.add_argument("--report", type=Path, default=BENCHMARKS, help="default: %(default)s")
    decoders = commands.add_parser("decoding", help="the gain from the choice of a decoder in the service")
    decoders.set_defaults(run=_decoding)
    decoders.add_argument("--models", type=Path, default=Settings().models, help="default: %(default)s")
    decoders.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    decoders.add_argument("--report", type=Path, default=BENCHMARKS, help="default: %(default)s")
    cost = commands.add_parser("jpeg-cost", help="the time of a JPEG at a reduced scale, and the counted cost")
    cost.set_defaults(run=_jpeg_cost)
    cost.add_argument("--report", type=Path, default=BENCHMARKS, help="default: %(default)s")
    scale = commands.add_parser("jpeg-scale", help="whether decoding JPEGs at a reduced scale changes predictions")
    scale.set_defaults(run=_jpeg_scale)
    scale.add_argument("--models", type=Path, default=Settings().models, help="default: %(default)s")
    scale.add_argument("--model", default="imagenette-resnet18", help="default: %(default)s")
    scale.add_argument("--photos", type=Path, help="folder of other large JPEGs, of any class")
    scale.add_argument("--count", type=int, default=1000, help="test images to enlarge (default: %(default)s)")
    scale.add_argument("--size", type=parse_size, default=(4032, 3024), metavar="WxH", help="default: 4032x3024")
    scale.add_argument("--report", type=Path, default=BENCHMARKS, help="default: %(default)s")
    setup = commands.add_parser("setup", help="only install the peers, each into its own environment")
    setup.set_defaults(run=_set_up)
    setup.add_argument(
        "--python",
        default=sys.executable,
        help="Python for peers that do not support this version",
    )
    for command in (peers, setup):
        command.add_argument("--peers", nargs="+", default=tuple(PACKAGES), help=f"default: {' '.join(PACKAGES)}")
    for command in (run, peers, pair):
        _add_model(command)
    pair.set_defaults(models=None)
    for command in (run, peers, over, large, pair):
        _add_common(command)
    for command in (run, peers, over, large):
        command.add_argument(
            "--report", type=Path, default=REPORT, help="Markdown file for the results (default: %(default)s)"
        )
    over.set_defaults(workers=1)
    return parser.parse_args()


def _add_model(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--models", type=Path, default=Settings().models, help="folder of models (default: %(default)s)")
    add("--model", default="mnist-lenet5", help="default: %(default)s")


def _add_common(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--images", type=Path, help="folder of images to send; default: digits, or CONVOY_DATA/photos")
    add(
        "--workers", type=int, default=usable_cores(), help="workers, and instances of each peer (default: %(default)s)"
    )
    add("--rounds", type=int, default=3, help="number of rounds; results are medians over them (default: %(default)s)")
    add("--seconds", type=float, default=4.0, help="duration of each load (default: %(default)s)")


if __name__ == "__main__":
    sys.exit(main())
