"""convoy-train list."""

import click

from training.cli.options import example


@click.command("list", epilog=example("convoy-train list"))
def list_recipes() -> None:
    """List the recipes."""
    from training.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        images = "--data FOLDER" if recipe.dataset == "folder" else recipe.dataset
        click.echo(f"{name:{width}}  {recipe.about}; {recipe.epochs} epochs of {images}")
