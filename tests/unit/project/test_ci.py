"""CI installs the programs that tests need, and fails on skipped tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SKIPPING = """
import pytest

def test_first(): pytest.skip("nginx is not installed")
def test_second(): pytest.skip("LitServe is not set up")
@pytest.mark.xfail
def test_third(): assert False
def test_fourth(): pass
"""


def run_pytest(folder: Path, no_skips: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(
        "from tests import no_skips\n\ndef pytest_configure(config): no_skips.register(config)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *options, folder]
    environment = os.environ | {"PYTEST_NO_SKIPS": no_skips, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_skip_that_is_not_allowed_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING)
    result = run_pytest(tmp_path, "1", *options)
    assert result.returncode == 1, result.stdout
    summary = result.stdout.partition("skips that are not allowed")[2]
    assert "[1] " in summary
    assert "test_it.py:4: nginx is not installed" in summary
    assert "LitServe" not in summary


def test_a_completely_skipped_module_is_detected(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text('import pytest\npytest.importorskip("no_such_module")\ndef test_it(): pass\n')
    (tmp_path / "test_other.py").write_text("def test_it(): pass\n")
    result = run_pytest(tmp_path, "1")
    assert result.returncode == 1
    assert "could not import 'no_such_module'" in result.stdout.partition("skips that are not allowed")[2]


def test_allowed_skips_pass_and_without_the_variable_all_do(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING)
    assert run_pytest(tmp_path, "").returncode == 0
    (tmp_path / "test_it.py").write_text(
        SKIPPING.replace("nginx is not installed", "CONVOY_DATA is not set: no real data")
    )
    assert run_pytest(tmp_path, "1").returncode == 0


TOOLS = ("bash", "env", "cut", "id", "cat")


def install_programs(folder: Path, present: set[str], apt: str | None) -> subprocess.CompletedProcess[str]:
    """Runs the script with only TOOLS and `present` installed; `apt` replaces apt-get."""
    folder.mkdir(exist_ok=True)
    for name in TOOLS:
        (folder / name).symlink_to(f"/usr/bin/{name}")
    scripts = dict.fromkeys(present, "") | ({"apt-get": apt, "sudo": 'shift; exec "$@"'} if apt is not None else {})
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    script = (ROOT / ".ci/install-programs").read_text().replace(":/usr/sbin:/usr/local/sbin", "")
    environment = {"PATH": str(folder)}
    return subprocess.run(["/usr/bin/bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30)


ALL = {"chromium", "nginx", "haproxy", "promtool", "docker-compose", "javac", "curl", "node", "wrk", "h2load"}


def test_only_what_is_missing_is_installed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    apt = f'echo "$*" >> {log}; case "$*" in *wrk) : > {tmp_path}/bin/wrk; /usr/bin/chmod 755 {tmp_path}/bin/wrk;; esac'
    result = install_programs(tmp_path / "bin", ALL - {"wrk", "javac"}, apt)
    assert (result.returncode, result.stdout, result.stderr) == (0, "javac\n", "")
    update, *installs = log.read_text().splitlines()
    assert update == "-qq update"
    assert [line.split()[-1] for line in installs] == ["default-jdk-headless", "wrk"]


def test_without_missing_programs_apt_is_not_called(tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = install_programs(tmp_path / "bin", ALL, f"echo > {log}")
    assert (result.returncode, result.stdout) == (0, "")
    assert not log.exists()


@pytest.mark.parametrize("apt", [None, "exit 100"], ids=["no apt", "apt fails"])
def test_without_apt_the_missing_programs_are_reported(tmp_path: Path, apt: str | None) -> None:
    result = install_programs(tmp_path / "bin", ALL - {"nginx", "node"}, apt)
    assert (result.returncode, result.stdout, result.stderr) == (0, "nginx\nnode\n", "")
