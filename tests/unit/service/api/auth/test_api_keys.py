"""API keys are read from lines, stored as hashes, compared with every key, and reloaded when the file changes."""

import asyncio
import hashlib
import hmac
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.api.auth import api_keys
from service.api.auth.api_keys import SCOPES, Keyring, generate_key, parse_keys
from service.cli.keys import key
from service.errors import BadKeys, Forbidden, Unauthenticated

SECRET = "correct-horse-battery-staple"
OTHER = "another-long-enough-secret"


def test_a_key_allows_only_its_scopes() -> None:
    secret, line = generate_key("shop", "inference,metrics")
    keyring = Keyring(line, None)
    assert keyring.authorize(secret.encode(), "inference") == "shop"
    assert keyring.authorize(secret.encode(), "metrics") == "shop"
    with pytest.raises(Forbidden, match="'shop' is not for 'repository'"):
        keyring.authorize(secret.encode(), "repository")
    assert secret not in line
    assert generate_key("shop", "inference")[0] != secret


def test_the_command_prints_a_key_and_its_line() -> None:
    result = CliRunner().invoke(key, ["shop", "--scopes", "inference,repository"])
    secret, line = (text.split(": ", 1)[1].strip() for text in result.output.splitlines())
    assert Keyring(line, None).authorize(secret.encode(), "repository") == "shop"
    bad = CliRunner().invoke(key, ["shop", "--scopes", "all"])
    assert isinstance(bad.exception, BadKeys)


def test_the_command_appends_lines_to_a_file_and_prints_only_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"old inference {SECRET}")  # without a line end
    inode = file.stat().st_ino
    shop, metrics = (
        CliRunner().invoke(key, [name, "--scopes", scopes, "--append", str(file)]).output.removesuffix("\n")
        for name, scopes in (("shop", "inference"), ("prometheus", "metrics"))
    )
    keyring = Keyring("", file)
    assert keyring.authorize(SECRET.encode(), "inference") == "old"
    assert keyring.authorize(shop.encode(), "inference") == "shop"
    assert keyring.authorize(metrics.encode(), "metrics") == "prometheus"
    assert len(file.read_text().splitlines()) == 3
    assert shop not in file.read_text()
    assert file.stat().st_ino == inode, "a container that mounts the file alone would not see another one"


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"shop inference {SECRET}", encoding="utf-8-sig")
    assert Keyring("", tmp_path / "keys").authorize(SECRET.encode(), "inference") == "shop"


def test_a_key_with_a_bad_scope_leaves_the_file_unchanged(tmp_path: Path) -> None:
    result = CliRunner().invoke(key, ["shop", "--scopes", "all", "--append", str(tmp_path / "keys")])
    assert isinstance(result.exception, BadKeys)
    assert not (tmp_path / "keys").exists()


def test_a_mounted_secret_is_read_again_when_kubernetes_replaces_its_folder(tmp_path: Path) -> None:
    """The file is a link through the link `..data`, which a rename replaces."""

    def publish(folder: str, line: str) -> None:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keys").write_text(line)
        (tmp_path / "..data_tmp").symlink_to(folder)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("..first", f"old inference {SECRET}")
    (tmp_path / "keys").symlink_to("..data/keys")
    keyring = Keyring("", tmp_path / "keys")
    publish("..second", f"new inference {OTHER}")
    keyring.reload_if_changed()
    assert keyring.authorize(OTHER.encode(), "inference") == "new"
    with pytest.raises(Unauthenticated):
        keyring.authorize(SECRET.encode(), "inference")


@pytest.mark.parametrize(
    "wrong_key", [b"wrong", b"\xff\xfe", SECRET.encode() + b"x", SECRET[:-1].encode(), b"x" * 10_000]
)
def test_a_wrong_key_is_rejected(wrong_key: bytes) -> None:
    with pytest.raises(Unauthenticated) as raised:
        Keyring(f"shop inference {SECRET}", None).authorize(wrong_key, "inference")
    assert raised.value.key_sent
    assert wrong_key.decode("latin-1") not in raised.value.message


def test_a_missing_key_is_distinguished_from_a_wrong_key() -> None:
    with pytest.raises(Unauthenticated) as raised:
        Keyring(f"shop inference {SECRET}", None).authorize(b"", "inference")
    assert not raised.value.key_sent


def test_keys_are_held_as_hashes_only() -> None:
    keyring = Keyring(f"shop inference {SECRET}; eve metrics {OTHER}", None)
    hashes = repr(keyring._settings_keys)
    assert SECRET not in hashes
    assert OTHER not in hashes
    assert hashlib.sha256(SECRET.encode()).digest() in [key.digest for key in keyring._settings_keys]


def test_every_key_is_compared_in_constant_time_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared_digests: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared_digests.append(one)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keyring = Keyring(";".join(f"k{n} inference {SECRET}{n}" for n in range(5)), None)
    assert keyring.authorize(f"{SECRET}0".encode(), "inference") == "k0"
    assert len(compared_digests) == 5


def test_empty_lines_and_comments_are_ignored() -> None:
    keys = parse_keys(f"# of the shop\n\n  shop inference,repository {SECRET}  \n", "keys")
    assert [(key.name, key.scopes) for key in keys] == [("shop", {"inference", "repository"})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("shop inference", "line 1 has 2 words"),
        (f"shop inference {SECRET} more", "line 1 has 4 words"),
        (f"shop inferense {SECRET}", "line 1 has an unknown scope; the scopes are inference, repository, metrics"),
        (f"shop inference, {SECRET}", "line 1 has an unknown scope"),
        (f"shop {SECRET} inference", "line 1 has an unknown scope"),
        (f"shop inference,{SECRET} {OTHER}", "line 1 has an unknown scope"),
        ("shop inference short", "a key of 5 characters; at least 16"),
        ("shop inference sha256:abc", "no SHA-256 of 64"),
    ],
)
def test_an_invalid_line_is_reported_without_the_key(line: str, problem: str) -> None:
    with pytest.raises(BadKeys, match=problem) as raised:
        parse_keys(line, "keys")
    error_text = f"{raised.value.message} {raised.value.hint}"
    assert not any(key in error_text for key in (SECRET, OTHER))


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"old inference {SECRET}")
    keyring = Keyring(f"fixed metrics {OTHER}", file)
    assert keyring.authorize(SECRET.encode(), "inference") == "old"
    file.write_text(f"new inference {SECRET}new")
    keyring.reload_if_changed()
    assert keyring.authorize(f"{SECRET}new".encode(), "inference") == "new"
    with pytest.raises(Unauthenticated):
        keyring.authorize(SECRET.encode(), "inference")
    assert keyring.authorize(OTHER.encode(), "metrics") == "fixed"


def test_an_invalid_or_missing_file_is_logged_once_and_keeps_the_previous_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"shop inference {SECRET}")
    keyring = Keyring("", file)
    assert not keyring.is_file_invalid
    file.write_text("shop inference")
    for _ in range(2):
        keyring.reload_if_changed()
        assert keyring.is_file_invalid
        assert keyring.authorize(SECRET.encode(), "inference") == "shop"
    file.unlink()
    for _ in range(2):
        keyring.reload_if_changed()
        assert keyring.authorize(SECRET.encode(), "inference") == "shop"
    assert caplog.messages == ["keys are invalid"] * 2
    file.write_text(f"shop inference {SECRET}")
    keyring.reload_if_changed()
    assert not keyring.is_file_invalid


def test_a_file_is_read_again_after_an_unforeseen_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"old inference {SECRET}")
    keyring = Keyring("", file)
    file.write_text(f"new inference,metrics {SECRET}")
    with monkeypatch.context() as patch:
        patch.setattr(api_keys, "parse_keys", lambda text, source: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keyring.reload_if_changed()
    keyring.reload_if_changed()
    assert keyring.authorize(SECRET.encode(), "metrics") == "new"


def test_a_file_is_reloaded_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "RELOAD_INTERVAL_S", 0.0)
    file = tmp_path / "keys"
    file.write_text(f"old inference {SECRET}")
    keyring = Keyring("", file)

    async def scenario() -> None:
        was_checked = asyncio.Event()
        following = asyncio.create_task(keyring.follow_file(was_checked.set))
        async with asyncio.timeout(30):
            await was_checked.wait()
            assert keyring.authorize(SECRET.encode(), "inference") == "old"
            file.write_text(f"newest inference {SECRET}")
            for _ in range(2):  # a check may have started before the change
                was_checked.clear()
                await was_checked.wait()
        following.cancel()

    asyncio.run(scenario())
    assert keyring.authorize(SECRET.encode(), "inference") == "newest"


def test_a_request_does_not_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"shop inference {SECRET}")
    keyring = Keyring("", file)
    stat_calls: list[Path] = []
    stat = os.stat
    monkeypatch.setattr(Path, "stat", lambda path, **options: stat_calls.append(path) or stat(path, **options))
    keyring.authorize(SECRET.encode(), "inference")
    assert stat_calls == []
    keyring.reload_if_changed()
    assert stat_calls == [file]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_missing_and_an_empty_file_reject_every_request(tmp_path: Path, scope: str) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    with pytest.raises(Unauthenticated):
        Keyring("", file).authorize(SECRET.encode(), scope)
    with pytest.raises(BadKeys, match="cannot be read"):
        Keyring("", tmp_path / "missing")
