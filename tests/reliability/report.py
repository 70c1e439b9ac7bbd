"""The sections of tests/reliability/README.md, each written by the command that measured it."""

import argparse
import shlex
import sys
from pathlib import Path

from tests.bench import machine_info
from tests.bench.report import sections

REPORT = Path("tests/reliability/README.md")
ABOUT = ("CPU", "cores", "system", "date", "convoy")


def add_report(command: argparse.ArgumentParser) -> None:
    shown = "Markdown file for the results (default: %(default)s)"
    command.add_argument("--report", type=Path, default=REPORT, help=shown)


def write(file: Path, section: str, content: str) -> None:
    """Puts what was measured between the section's markers, under on what, when and with which command."""
    facts = machine_info.describe()
    about = sections.about({name: facts[name] for name in ABOUT}, command_line())
    sections.replace_section(file, section, f"{about}\n\n{content}")
    print(f"\n{content}\n\nwritten into {file}", flush=True)


def command_line() -> str:
    return shlex.join(["python", "-m", "tests.reliability", *sys.argv[1:]])
