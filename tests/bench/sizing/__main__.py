"""`python -m tests.bench.sizing`: measures memory and CPU per model, and writes the table into docs/capacity.md.

Other work on the machine changes neither memory nor processor time per image by much, so the machine need not be idle.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import machine_info
from tests.bench.errors import CannotMeasure
from tests.bench.report import markdown
from tests.bench.sizing.clients import BATCH_IMAGES, CLIENTS
from tests.bench.sizing.formula import PAGE, as_table
from tests.bench.sizing.measure import Size, measure

ROOT = Path(__file__).parents[3]
ALL = "all shipped models"
RESNET50 = "ResNet-50"


def main(arguments: Sequence[str]) -> int:
    args = _arguments(arguments)
    sizes: list[Size] = []
    try:
        environment = machine_info.describe()
        with TemporaryDirectory(prefix="convoy-sizing-") as name:
            for title, models in _installations(args.models, Path(name)):
                for workers in args.workers:
                    sizes.append(measure(title, models, workers, args.seconds, Path(name)))
                    print(sizes[-1], flush=True)
        content = _section(sizes, environment, shlex.join(["python", "-m", "tests.bench.sizing", *arguments]))
        if not args.print_only:
            markdown.replace_section(args.report, "sizing", content)
    except CannotMeasure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"\n{content}\n")
    return 0


def _installations(own: Path | None, work: Path) -> Iterator[tuple[str, Path]]:
    """Yields the title and models folder of each installation: each model alone, then all models together."""
    models = own or ROOT / "models"
    names = sorted(path.name for path in models.iterdir() if path.is_dir())
    for name in names:
        (work / "single" / name).mkdir(parents=True)
        (work / "single" / name / name).symlink_to((models / name).resolve())
        yield name, work / "single" / name
    if len(names) > 1:
        yield ALL if own is None else "all together", models
    if own is None:
        from tests.bench import resnet50  # imports training code

        yield RESNET50, resnet50.write_models_folder(work)


def _section(sizes: Sequence[Size], environment: dict[str, str], command: str) -> str:
    left_out = ("generators", "busy with other work")
    rows = {key: value for key, value in environment.items() if key not in left_out}
    rows["load"] = f"{CLIENTS} connections, one of which sends batches of {BATCH_IMAGES} images"
    rows["images"] = "JPEG of 500x375 pixels; gray: PNG of the model's size"
    return f"{markdown.environment_table(rows, command)}\n\n{as_table(sizes)}"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench.sizing", description=__doc__)
    add = parser.add_argument
    add("--models", type=Path, help="folder of models; default: the shipped models, and ResNet-50 with random weights")
    add("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (default: 1 2)")
    add("--seconds", type=float, default=10.0, help="duration of each load (default: %(default)s)")
    add("--report", type=Path, default=PAGE, help="Markdown file for the results (default: docs/capacity.md)")
    add("--print-only", action="store_true", help="write no report")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
