"""API keys: read from lines, held as hashes, compared one and all, read again when their file changes."""

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.api.auth import api_keys
from service.api.auth.api_keys import SCOPES, Keyring, make, parse
from service.cli.keys import key
from service.errors import BadKeys, Forbidden, Unauthenticated

SECRET = "correct-horse-battery-staple"
OTHER = "another-long-enough-secret"


def test_a_made_key_is_let_in_for_its_scopes_and_no_others() -> None:
    secret, line = make("shop", "inference,metrics")
    ring = Keyring(line, None)
    assert ring.allow(secret.encode(), "inference") == "shop"
    assert ring.allow(secret.encode(), "metrics") == "shop"
    with pytest.raises(Forbidden, match="'shop' is not for 'repository'"):
        ring.allow(secret.encode(), "repository")
    assert secret not in line
    assert make("shop", "inference")[0] != secret


def test_the_command_prints_a_key_and_its_line() -> None:
    done = CliRunner().invoke(key, ["shop", "--scopes", "inference,repository"])
    secret, line = (text.split(": ", 1)[1].strip() for text in done.output.splitlines())
    assert Keyring(line, None).allow(secret.encode(), "repository") == "shop"
    bad = CliRunner().invoke(key, ["shop", "--scopes", "all"])
    assert isinstance(bad.exception, BadKeys)


@pytest.mark.parametrize("given", [b"wrong", b"\xff\xfe", SECRET.encode() + b"x", SECRET[:-1].encode(), b"x" * 10_000])
def test_a_wrong_key_is_refused(given: bytes) -> None:
    with pytest.raises(Unauthenticated) as raised:
        Keyring(f"shop inference {SECRET}", None).allow(given, "inference")
    assert raised.value.given
    assert given.decode("latin-1") not in raised.value.message


def test_no_key_is_another_error_than_a_wrong_one() -> None:
    with pytest.raises(Unauthenticated) as raised:
        Keyring(f"shop inference {SECRET}", None).allow(b"", "inference")
    assert not raised.value.given


def test_keys_are_held_as_hashes_only() -> None:
    ring = Keyring(f"shop inference {SECRET}; eve metrics {OTHER}", None)
    held = repr(ring._given)
    assert SECRET not in held
    assert OTHER not in held
    assert hashlib.sha256(SECRET.encode()).digest() in [key.digest for key in ring._given]


def test_every_key_is_compared_in_constant_time_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", watched)
    ring = Keyring(";".join(f"k{n} inference {SECRET}{n}" for n in range(5)), None)
    assert ring.allow(f"{SECRET}0".encode(), "inference") == "k0"
    assert len(compared) == 5


def test_lines_may_be_empty_or_remarks() -> None:
    found = parse(f"# of the shop\n\n  shop inference,repository {SECRET}  \n", "keys")
    assert [(key.name, key.scopes) for key in found] == [("shop", {"inference", "repository"})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("shop inference", "line 1 has 2 words"),
        (f"shop inference {SECRET} more", "line 1 has 4 words"),
        (f"shop inferense {SECRET}", "line 1 has a scope that there is not; there are inference, repository, metrics"),
        (f"shop inference, {SECRET}", "line 1 has a scope that there is not"),
        (f"shop {SECRET} inference", "line 1 has a scope that there is not"),
        (f"shop inference,{SECRET} {OTHER}", "line 1 has a scope that there is not"),
        ("shop inference short", "a key of 5 characters; at least 16"),
        ("shop inference sha256:abc", "no SHA-256 of 64"),
    ],
)
def test_a_bad_line_is_told_without_the_key(line: str, problem: str) -> None:
    with pytest.raises(BadKeys, match=problem) as raised:
        parse(line, "keys")
    told = f"{raised.value.message} {raised.value.hint}"
    assert not any(key in told for key in (SECRET, OTHER))


def test_a_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "LOOK_EVERY_S", 0.0)
    file = tmp_path / "keys"
    file.write_text(f"old inference {SECRET}")
    ring = Keyring(f"fixed metrics {OTHER}", file)
    assert ring.allow(SECRET.encode(), "inference") == "old"
    file.write_text(f"new inference {SECRET}new")
    assert ring.allow(f"{SECRET}new".encode(), "inference") == "new"
    with pytest.raises(Unauthenticated):
        ring.allow(SECRET.encode(), "inference")
    assert ring.allow(OTHER.encode(), "metrics") == "fixed"


def test_a_file_that_went_bad_or_away_leaves_the_keys_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "LOOK_EVERY_S", 0.0)
    file = tmp_path / "keys"
    file.write_text(f"shop inference {SECRET}")
    ring = Keyring("", file)
    file.write_text("shop inference")
    assert ring.allow(SECRET.encode(), "inference") == "shop"
    file.unlink()
    assert ring.allow(SECRET.encode(), "inference") == "shop"


def test_a_file_is_looked_at_now_and_then_not_at_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "LOOK_EVERY_S", 3600.0)
    file = tmp_path / "keys"
    file.write_text(f"shop inference {SECRET}")
    ring = Keyring("", file)
    looks: list[Path] = []
    stat = os.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: looks.append(path) or stat(path, **how))
    for _ in range(100):
        ring.allow(SECRET.encode(), "inference")
    assert looks == []


@pytest.mark.parametrize("scope", SCOPES)
def test_no_file_and_an_empty_file_let_nobody_in(tmp_path: Path, scope: str) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    with pytest.raises(Unauthenticated):
        Keyring("", file).allow(SECRET.encode(), scope)
    with pytest.raises(BadKeys, match="cannot be read"):
        Keyring("", tmp_path / "missing")
