"""convoy-train ensemble."""

from pathlib import Path

import click

from training.cli.options import DATA, DATA_DIR, FOLDER, MODELS_DIR, SKIP_UNREADABLE, example, import_keras


@click.command(
    epilog=example(
        "convoy-train ensemble models/imagenette/1 models/imagenette/2 --name imagenette-together",
        "convoy-train ensemble models/pets/1 models/pets/2 models/pets/4 --name pets-together --data photos/",
    )
)
@click.argument("members", nargs=-1, required=True, metavar="VERSION_FOLDER...", type=FOLDER)
@click.option("--name", required=True, help="The ensemble's name in the service.")
@MODELS_DIR
@click.option("--dataset", help="Instead of the data set that the members name.")
@DATA
@SKIP_UNREADABLE
@DATA_DIR
@click.option(
    "--images",
    type=FOLDER,
    help="Check on the images in a folder; without --dataset or --data nothing is measured.",
)
def ensemble(
    members: tuple[Path, ...],
    name: str,
    models_dir: Path,
    dataset: str | None,
    data: Path | None,
    skip_unreadable: bool,
    data_dir: Path | None,
    images: Path | None,
) -> None:
    """Publish several versions as one that answers with the mean of their probabilities.

    The members must take the same images, prepared in the same way, and have the same labels. It costs as much as
    all of them together.
    """
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.export import ensemble

    evaluation = ensemble.EvaluationData(dataset, DataOptions(data_dir, data, skip_unreadable=skip_unreadable), images)
    click.echo(ensemble.ensemble(members, name, models_dir, evaluation, click.echo))
