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
@click.option("--dataset", help="Default: the data set in the members' manifests.")
@DATA
@SKIP_UNREADABLE
@DATA_DIR
@click.option(
    "--images",
    type=FOLDER,
    help="Check the graph on the images of this folder. Without --dataset or --data, accuracy is not measured.",
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
    """Publish several versions as one version that returns the mean of their probabilities.

    The members must have the same input, preprocessing and labels. The ensemble costs as much as all members together.
    """
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.export import ensemble

    evaluation = ensemble.EvaluationData(dataset, DataOptions(data_dir, data, skip_unreadable=skip_unreadable), images)
    click.echo(ensemble.ensemble(members, name, models_dir, evaluation, click.echo))
