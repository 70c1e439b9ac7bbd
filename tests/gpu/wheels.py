"""Downloads packages for serving on a GPU to a machine without internet: `python -m tests.gpu.wheels FOLDER`.

Copy the parts, install.sh and parts.sha256 into one folder there and run `sh install.sh TARGET`. Then run
`PYTHONPATH=TARGET python -m tests.gpu` in the checkout.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements/serve-gpu.txt"
# pip accepts only the tags that it is given, and no older ones.
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17")
PLATFORMS += ("manylinux2014", "manylinux2010", "manylinux1", "linux")
MIB = 2**20
INSTALL = """\
#!/bin/sh
# Joins the parts beside this file and installs their wheels without a network: sh install.sh TARGET
set -eu
here=$(cd "$(dirname "$0")" && pwd)
(cd "$here" && sha256sum --check --quiet parts.sha256)
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
cat "$here"/part-* | tar -x -f - -C "$wheels"
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \\
    --target "$1" "$wheels"/*.whl
"""


def main() -> None:
    args = _arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    requirements = [
        one for one in pinned(REQUIREMENTS.read_text(), args.python) if not _matches_any(one.name, args.without)
    ]
    with tempfile.TemporaryDirectory() as name:
        wheels = Path(name)
        _download(wheels, args.python, [str(requirement) for requirement in requirements], ["--no-deps"])
        if args.also:
            constraints = wheels / "constraints.txt"
            constraints.write_text("\n".join(map(str, pinned(REQUIREMENTS.read_text(), args.python))))
            _download(wheels, args.python, args.also, ["--constraint", str(constraints)])
        _build(wheels)
        parts = split(select_wheels(wheels, args.without), args.folder, args.part_mib * MIB)
    for part in parts:
        print(f"{part}: {part.stat().st_size / MIB:.1f} MiB")


def pinned(requirements_text: str, python: str) -> list[Requirement]:
    """Returns the requirements `name==version` of a compiled list for Linux and this Python, without hashes."""
    environment = {"python_full_version": f"{python}.0", "python_version": python, "sys_platform": "linux"}
    lines = (line.removesuffix("\\").strip() for line in requirements_text.splitlines() if line[:1].isalnum())
    requirements = [Requirement(line) for line in lines]
    applicable = [one for one in requirements if one.marker is None or one.marker.evaluate(environment)]
    return [Requirement(f"{one.name}{one.specifier}") for one in applicable]


def split(wheels: Iterable[Path], folder: Path, max_bytes: int) -> list[Path]:
    """Writes parts of at most `max_bytes`, their checksums and install.sh into the folder; returns the parts."""
    for old in folder.glob("part-*"):
        old.unlink()
    parts = []
    with tempfile.TemporaryFile() as joined_parts:
        with tarfile.open(fileobj=joined_parts, mode="w") as packed:
            for wheel in wheels:
                packed.add(wheel, wheel.name)
        joined_parts.seek(0)
        for number, chunk in enumerate(iter(lambda: joined_parts.read(max_bytes), b"")):
            parts.append(folder / f"part-{number:03}")
            parts[-1].write_bytes(chunk)
    (folder / "parts.sha256").write_text("".join(_checksum_lines(parts)))
    (folder / "install.sh").write_text(INSTALL)
    return parts


def _checksum_lines(parts: Sequence[Path]) -> Iterator[str]:
    for part in parts:
        yield f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n"


def select_wheels(wheels: Path, without: Sequence[str]) -> list[Path]:
    """Returns the wheels in a folder, without packages that the machine has, which dependencies of `--also` may
    include."""
    return [wheel for wheel in sorted(wheels.glob("*.whl")) if not _matches_any(wheel.name.partition("-")[0], without)]


def _matches_any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name.replace("_", "-").lower(), pattern) for pattern in patterns)


def _download(to: Path, python: str, requirements: Sequence[str], options: Sequence[str]) -> None:
    platform_options = [option for name in PLATFORMS for option in ("--platform", f"{name}_x86_64")]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platform_options]
    _pip("download", "--dest", str(to), *target, *options, *requirements)


def _build(to: Path) -> None:
    """Builds Convoy's wheel, from which the service reads its version."""
    _pip("wheel", "--no-deps", "--wheel-dir", str(to), str(ROOT))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command).returncode:
        raise SystemExit(f"pip {arguments[0]} failed; see above.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.gpu.wheels", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path)
    add("--part-mib", type=int, default=55, help="maximum size of a part (default: %(default)s)")
    add("--python", default="3.12", help="Python version of the machine (default: %(default)s)")
    add("--without", nargs="+", default=(), help="packages that the machine already has, such as 'nvidia-*' numpy")
    add("--also", nargs="+", default=(), help="further packages with their dependencies, such as litserve")
    return parser.parse_args()


if __name__ == "__main__":
    main()
