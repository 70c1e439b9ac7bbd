"""A virtual environment for each peer, in the user's cache folder: about 1.7 GB in all, and a minute or two."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure

PACKAGES = {
    "triton": "nvidia-pytriton",
    "mlserver": "mlserver",
    "litserve": "litserve",
    "bentoml": "bentoml",
    "ray": "ray[serve]",
}
COMMON = ("onnxruntime", "pillow")
NEEDED_BYTES = 3 * 10**9  # the environments, and pip's working space


class Python(NamedTuple):
    """What an environment was made with: the version, as 3.11.7, and the folder with its bin and lib."""

    version: str
    prefix: Path

    @property
    def minor(self) -> str:
        """As in 3.11."""
        return self.version.rpartition(".")[0]


def home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "convoy-peers"


def set_up(names: Sequence[str], python: str = sys.executable) -> None:
    """Makes the environments that are not there yet, with that Python.

    Raises CannotMeasure for an unknown peer, a full disk, or one that cannot be installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise CannotMeasure(f"There is no peer '{name}'; there are {', '.join(PACKAGES)}.")
    for name in (name for name in names if not _marker(name).exists()):
        home().mkdir(parents=True, exist_ok=True)
        _require_disk_space()
        print(f"installing {name} into {home() / name} ...", flush=True)
        _install(name, python)


def executable(name: str, command: str) -> Path:
    return home() / name / "bin" / command


def site_packages(name: str) -> Path:
    return next((home() / name / "lib").glob("python*/site-packages"))


def python_of(name: str) -> Python:
    """What the environment's pyvenv.cfg says. Source: PEP 405, and Python's own venv for the version."""
    lines = (home() / name / "pyvenv.cfg").read_text().splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    return Python(values["version"], Path(values["home"]).parent)


def version(name: str) -> str:
    """The installed version of the peer's package, as its metadata folder says."""
    project = re.sub(r"[-_.]+", "_", PACKAGES[name].partition("[")[0])
    metadata = next(site_packages(name).glob(f"{project}-*.dist-info"))
    return metadata.name.removesuffix(".dist-info").rpartition("-")[2]


def _install(name: str, python: str) -> None:
    # A half-made environment of an interrupted run is made anew: the marker comes last.
    try:
        subprocess.run([python, "-m", "venv", "--clear", home() / name], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotMeasure(f"{python} cannot make an environment: {error}.") from error
    pip = [executable(name, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, PACKAGES[name], *COMMON]).returncode:
        raise CannotMeasure(
            f"{PACKAGES[name]} could not be installed; see above. "
            f"Leave it out with --peers, or try another Python: python -m tests.bench setup --peers {name} --python ..."
        )
    _marker(name).touch()


def _marker(name: str) -> Path:
    return home() / name / "ready"


def _require_disk_space() -> None:
    free = shutil.disk_usage(home()).free
    if free < NEEDED_BYTES:
        raise CannotMeasure(f"{home()} has {free / 1e9:.1f} GB free; {NEEDED_BYTES / 1e9:.0f} GB are needed.")
