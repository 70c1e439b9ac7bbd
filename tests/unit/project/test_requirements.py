"""Every list of requirements is pinned and hashed and contains no index, and no two lists have different versions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LISTS = sorted((ROOT / "requirements").glob("*.txt"))
PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z0-9,-]+\])?==(?P<version>[^\s;]+)( ; (?P<where>.+))?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def requirements(file: Path) -> list[list[str]]:
    """Returns each requirement with the options that follow it, without comments."""
    text = file.read_text().replace(" \\\n", "\n")
    lines: list[list[str]] = []
    for line in text.splitlines():
        stripped = line.partition("#")[0].strip()
        if line.startswith((" ", "\t")) and stripped:
            lines[-1].append(stripped)
        elif stripped:
            lines.append([stripped])
    return lines


@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.name)
def test_every_requirement_is_pinned_and_hashed(file: Path) -> None:
    lines = requirements(file)
    assert lines
    for requirement, *options in lines:
        assert PINNED.fullmatch(requirement), f"{requirement} is not a pinned requirement (an index, a URL, a range?)"
        assert options, f"{requirement} has no hash"
        assert all(HASH.fullmatch(option) for option in options), f"{requirement} has other options: {options}"


def test_tests_and_service_use_the_same_versions() -> None:
    versions: dict[tuple[str, str], dict[str, str]] = {}
    for file in LISTS:
        for requirement, *_ in requirements(file):
            match = PINNED.fullmatch(requirement)
            if match is not None:
                versions.setdefault((match["name"], match["where"] or ""), {})[file.name] = match["version"]
    differing = {
        name: version_by_file
        for (name, _), version_by_file in versions.items()
        if len(set(version_by_file.values())) > 1
    }
    assert differing == {}


@pytest.mark.parametrize(("environment", "listed"), [(".venv", "serve"), (".venv-dev", "dev")])
def test_make_installs_only_from_hashed_lists(environment: str, listed: str) -> None:
    """Without --no-build-isolation, pip would download and run the newest build backend."""
    command_prefix = f"\t{environment}/bin/python $(PIP_INSTALL) "
    installs = [
        line.removeprefix(command_prefix)
        for line in (ROOT / "Makefile").read_text().splitlines()
        if command_prefix in line
    ]
    assert installs == [
        f"--require-hashes -r requirements/{listed}.txt -r requirements/build.txt",
        "--no-deps --no-build-isolation --editable .",
    ]
