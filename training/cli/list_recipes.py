"""convoy-train list."""

import click

from training.cli.options import example


@click.command("list", epilog=example("convoy-train list"))
def list_recipes() -> None:
    """List the recipes, and the architectures that can be used in place of a recipe with --data."""
    from training.recipes import RECIPES, own_images

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        images = "--data FOLDER" if recipe.dataset == "folder" else recipe.dataset
        click.echo(f"{name:{width}}  {recipe.about}; {recipe.epochs} epochs of {images}")
    networks = [name for name in own_images.ARCHITECTURE_NAMES if name not in RECIPES]
    click.echo(f"With --data FOLDER, these architectures can be used as well: {', '.join(networks)}")
