"""Creates a virtual environment per peer in the user's cache folder: about 1.7 GB in total, in one to two minutes."""

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
NEEDED_BYTES = 3 * 10**9  # the environments and pip's temporary files


class Python(NamedTuple):
    """The Python of an environment: its version, such as 3.11.7, and the folder that contains bin and lib."""

    version: str
    prefix: Path

    @property
    def minor(self) -> str:
        """Major and minor version, such as 3.11."""
        return self.version.rpartition(".")[0]


def home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "convoy-peers"


def set_up(names: Sequence[str], python: str = sys.executable) -> None:
    """Creates missing environments with `python`.

    Raises CannotMeasure for an unknown peer, a full disk, and a failed installation.
    """
    for name in names:
        if name not in PACKAGES:
            raise CannotMeasure(f"There is no peer '{name}'; the peers are {', '.join(PACKAGES)}.")
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
    """Reads the environment's pyvenv.cfg. Source: PEP 405, and Python's venv for the version."""
    lines = (home() / name / "pyvenv.cfg").read_text().splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    return Python(values["version"], Path(values["home"]).parent)


def version(name: str) -> str:
    """Returns the installed version of the peer's package, from its metadata folder."""
    project = re.sub(r"[-_.]+", "_", PACKAGES[name].partition("[")[0])
    metadata = next(site_packages(name).glob(f"{project}-*.dist-info"))
    return metadata.name.removesuffix(".dist-info").rpartition("-")[2]


def _install(name: str, python: str) -> None:
    # The marker is written last, so that the incomplete environment of an interrupted run is created again.
    try:
        subprocess.run([python, "-m", "venv", "--clear", home() / name], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotMeasure(f"{python} cannot create an environment: {error}.") from error
    pip = [executable(name, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, PACKAGES[name], *COMMON]).returncode:
        raise CannotMeasure(
            f"{PACKAGES[name]} could not be installed; see above. Omit it with --peers, or try another Python: python "
            f"-m tests.bench setup --peers {name} --python ..."
        )
    _marker(name).touch()


def _marker(name: str) -> Path:
    return home() / name / "ready"


def _require_disk_space() -> None:
    free = shutil.disk_usage(home()).free
    if free < NEEDED_BYTES:
        raise CannotMeasure(f"{home()} has {free / 1e9:.1f} GB free; {NEEDED_BYTES / 1e9:.0f} GB are needed.")
