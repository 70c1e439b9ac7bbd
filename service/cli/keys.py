"""convoy key: creates an API key."""

from pathlib import Path

import click

from service.api.auth import api_keys


@click.command(epilog="Example: convoy key webshop --scopes inference")
@click.argument("name")
@click.option(
    "--scopes",
    default=api_keys.INFERENCE,
    show_default=True,
    help=f"Comma-separated scopes, from {', '.join(api_keys.SCOPES)}.",
)
@click.option(
    "--append",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the line to this file, and print only the key.",
)
def key(name: str, scopes: str, file: Path | None) -> None:
    """Create an API key for NAME: print the key, and the line that enables it.

    The line goes into the file that CONVOY_KEYS_FILE names, which is reloaded when it changes, or into CONVOY_KEYS,
    where semicolons separate lines. The line contains only a hash, so the key is never shown again. Clients send the
    key as `Authorization: Bearer KEY`. A line `NAME SCOPES KEY` with the key itself, of at least 16
    characters, works too.
    """
    secret, line = api_keys.generate_key(name, scopes)
    if file is not None:
        _append_line(file, line)
        click.echo(secret)
        return
    click.echo(f"the key:  {secret}")
    click.echo(f"the line: {line}")


def _append_line(file: Path, line: str) -> None:
    """Appends a line in place, because a container that mounts only this file would not see a new file."""
    with file.open("a+", encoding="utf-8") as keys:
        keys.seek(0)
        text = keys.read()
        keys.write(f"{line}\n" if not text or text.endswith("\n") else f"\n{line}\n")
