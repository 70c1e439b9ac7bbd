"""Starts, measures and stops servers as child processes, including their descendants. Linux only."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 15


@contextlib.contextmanager
def run_process(
    command: Sequence[str | Path], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process within the context, with its output in `log`, and then stops it and its descendants."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGTERM to the process group, then SIGKILL to the remaining members and descendants."""
    # Some descendants have left the group (Ray's daemons). A pidfd stays valid even if the process number is reused.
    descendants = [pidfd for pid in process_tree(process.pid)[1:] if (pidfd := _pidfd(pid)) is not None]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pidfd in descendants:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def free_ports(count: int = 1) -> list[int]:
    """Returns TCP ports of the loopback address that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def process_tree(pid: int) -> list[int]:
    """Returns the process and all its descendants."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread or the process has just ended
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, file.read_text().split())
    return [pid, *(descendant for child in children for descendant in process_tree(child))]


def cpu_s(pid: int) -> float:
    """Returns the processor seconds (user and system) of the process and its running descendants."""
    ticks = 0
    for member in process_tree(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of the process and its descendants. Shared pages count once per process."""
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in process_tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(pid: int) -> int:
    """Returns the memory of the process and its descendants. A page that several processes share counts once in
    total."""
    total = 0
    for member in process_tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has just ended
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
            total += int(text.partition("\nPss:")[2].split()[0]) * 1024
    return total


def peak_resident_bytes(pid: int) -> int:
    """Returns the sum of the peak resident memory of each process in the tree."""
    texts = (Path(f"/proc/{member}/status").read_text() for member in process_tree(pid))
    return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in texts)


def last_lines(log: Path, count: int = 5) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
