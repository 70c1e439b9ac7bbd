"""convoy-train jpeg-scale."""

from pathlib import Path

import click

from training.cli.options import FOLDER, example, import_keras


@click.command("jpeg-scale", epilog=example("convoy-train jpeg-scale models/pets/1"))
@click.argument("version", metavar="VERSION_FOLDER", type=FOLDER)
def jpeg_scale(version: Path) -> None:
    """Publish a version again as the next version, so that large JPEGs are decoded at a reduced scale.

    Exports and imports already do this. The graphs and their figures do not change.
    """
    import_keras()
    from training.export.version_folder import publish_with_jpeg_scale

    click.echo(publish_with_jpeg_scale(version))
