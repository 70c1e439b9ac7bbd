"""Runs a container from an image with runc, as Docker does.

The container has its own process numbers, a read-only root, no capabilities, and the image's user, environment and
command. It shares the network of this machine.
"""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any

PRIVATE = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
STOP_S = 40
# Docker and Kubernetes give every container an /etc/hosts with the container's name, which gloo looks up.
HOSTS = "127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback\n"


class Container:
    """A container that runs within the context. `tree` contains its files. `config` is the image's configuration."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        tree: Path,
        config: dict[str, Any],
        *,
        command: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
        binds: dict[str, Path] | None = None,
    ) -> None:
        """`command` replaces the image's command. `binds` maps paths in the container to writable folders of this
        machine."""
        self.name = f"convoy-test-{os.getpid()}-{next(self._numbers)}"
        self._config = config
        self._command = [*config["Entrypoint"], *(config["Cmd"] if command is None else command)]
        self._environment = [*config["Env"], *(f"{name}={value}" for name, value in (environment or {}).items())]
        self._tree = tree
        self._binds = binds or {}
        self._bundle = TemporaryDirectory(prefix="convoy-bundle-")

    def __enter__(self) -> "Container":
        folder = Path(self._bundle.name)
        (folder / "hosts").write_text(HOSTS.format(name=self.name))
        (folder / "config.json").write_text(json.dumps(self._spec(folder)))
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["runc", "run", "--bundle", folder, self.name], stdout=self._log, stderr=subprocess.STDOUT
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGKILL)
            self._process.wait(STOP_S)
        if error is not None:
            print(self.log())
        self._log.close()
        self._bundle.cleanup()

    def log(self) -> str:
        return Path(self._bundle.name, "log").read_text()

    def exec(self, *command: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs another process in the container as the same user."""
        return subprocess.run(["runc", "exec", self.name, *command], stdin=stdin, capture_output=True, text=True)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to process 1 of the container."""
        subprocess.run(["runc", "kill", self.name, str(int(number))], check=False, capture_output=True)

    def exit_code(self, timeout_s: float = STOP_S) -> int:
        """Waits for the exit and returns the code. Raises TimeoutExpired."""
        return self._process.wait(timeout_s)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def _spec(self, folder: Path) -> dict[str, Any]:
        """Returns the configuration according to the OCI runtime specification."""
        user, _, group = self._config["User"].partition(":")
        return {
            "ociVersion": "1.0.2",
            "hostname": self.name,
            "root": {"path": str(self._tree), "readonly": True},
            "process": {
                "user": {"uid": int(user), "gid": int(group)},
                "args": self._command,
                "env": self._environment,
                "cwd": self._config["WorkingDir"],
                "noNewPrivileges": True,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "mode=1777"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},
                _bind("/etc/hosts", folder / "hosts", "ro"),
                *(_bind(inside, host_folder, "rw") for inside, host_folder in self._binds.items()),
            ],
            "linux": {"namespaces": PRIVATE},
        }


def _bind(inside: str, host_folder: Path, access: str) -> dict[str, Any]:
    return {"destination": inside, "type": "bind", "source": str(host_folder), "options": ["bind", access]}
