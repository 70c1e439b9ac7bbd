"""convoy key: creates an API key."""

import click

from service.api.auth import api_keys


@click.command(epilog="Example: convoy key webshop --scopes inference")
@click.argument("name")
@click.option(
    "--scopes", default=api_keys.INFERENCE, show_default=True, help=f"Comma-separated, of {', '.join(api_keys.SCOPES)}."
)
def key(name: str, scopes: str) -> None:
    """Create an API key for NAME: print the key, and the line that enables it.

    The line goes into the file that CONVOY_KEYS_FILE names, which is read again when it changes, or into CONVOY_KEYS,
    where semicolons separate lines. The line contains only a hash, so the key is never shown again. Clients send the
    key as `Authorization: Bearer KEY`. A line `NAME SCOPES KEY` with the key itself, of at least 16
    characters, works too.
    """
    secret, line = api_keys.generate_key(name, scopes)
    click.echo(f"the key:  {secret}")
    click.echo(f"the line: {line}")
