"""The commands in README.md and docs/ give the output that is shown below them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.documentation import PAGES, ROOT

BLOCK = re.compile(r"```(sh|python|js)\n((?:(?!```).)*)```\s+```(?:json|text)\n((?:(?!```).)*)```", re.DOTALL)
PROGRAMS = {"python": [sys.executable, "-"], "js": ["node", "--input-type=module", "-"]}
START_S = 120.0


def answered_commands() -> list[tuple[str, str, str]]:
    """Returns the language, text and output of every command and program in the pages whose output is shown below
    it."""
    blocks = dict.fromkeys(block for page in PAGES for block in BLOCK.findall(page.read_text()))
    return [(language, text.strip(), answer.strip()) for language, text, answer in blocks]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Yields the address of `make serve` once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith("CONVOY_")} | {"CONVOY_PORT": str(port)}
    process = subprocess.Popen(["make", "serve"], cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    address = f"127.0.0.1:{port}"
    try:
        _wait_ready(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            if httpx.get(f"http://{address}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"make serve did not become ready; exit code {process.poll()}")


def test_the_documentation_contains_commands_with_output() -> None:
    languages = Counter(language for language, _, _ in answered_commands())
    assert languages["sh"] >= 3
    assert languages["python"] >= 2
    assert languages["js"] >= 1


@pytest.mark.parametrize(("language", "text", "answer"), answered_commands())
def test_a_command_prints_its_documented_output(address: str, language: str, text: str, answer: str) -> None:
    text = text.replace("127.0.0.1:8000", address)
    words, program = (["bash", "-euc", text], None) if language == "sh" else (PROGRAMS[language], text)
    needed = text.split()[0] if language == "sh" else words[0]
    if not shutil.which(needed):
        pytest.skip(f"{needed} is not installed: its example is not run")
    process = subprocess.run(words, cwd=ROOT, input=program, capture_output=True, text=True, timeout=60, check=True)
    if answer.startswith("{"):
        assert _rounded(json.loads(process.stdout)) == _rounded(json.loads(answer))
    else:
        assert _short(process.stdout.strip()) == _short(answer)


def _short(text: str) -> str:
    """Shortens probabilities to four digits, because processors differ in the last digits."""
    return re.sub(r"(0\.\d{4})\d+", r"\1", text)


def _rounded(value: Any) -> Any:
    """Rounds probabilities, because processors differ in the last digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
