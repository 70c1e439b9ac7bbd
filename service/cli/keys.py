"""convoy key: makes an API key."""

import click

from service.api.auth import api_keys


@click.command(epilog="Example: convoy key webshop --scopes inference")
@click.argument("name")
@click.option(
    "--scopes", default=api_keys.INFERENCE, show_default=True, help=f"Comma-separated, of {', '.join(api_keys.SCOPES)}."
)
def key(name: str, scopes: str) -> None:
    """Make an API key for NAME: the key itself, and the line that lets it in.

    The line goes into the file that CONVOY_KEYS_FILE names, which is read again when it changes, or into CONVOY_KEYS,
    where semicolons separate lines. It holds a hash only, so the key is shown this once; clients send it as
    `Authorization: Bearer KEY`. A line `NAME SCOPES KEY` with the key itself, of 16 characters or more, works too.
    """
    secret, line = api_keys.generate_key(name, scopes)
    click.echo(f"the key:  {secret}")
    click.echo(f"the line: {line}")
