"""convoy models list | show | verify | rollback | prune: manages versions on disk. No service needs to run."""

import json
import sys
from pathlib import Path

import click

from service.cli.options import complete_model_name, settings_options
from service.command_group import echo_line
from service.errors import BrokenVersion, UnknownModel, UnknownVersion
from service.model_store.desired_state import StateFile
from service.model_store.manifest import Manifest, Variant
from service.model_store.mirror import local_models, open_mirror
from service.model_store.object_store import is_url
from service.model_store.repository import Repository
from service.model_store.rollback_and_prune import prune_versions, roll_back, undo_rollback
from service.settings import Settings

COMMANDS = ("list", "show", "verify", "rollback", "prune")


@click.group(invoke_without_command=True, epilog="Example: convoy models --models /srv/models")
@click.option(
    "--models", metavar="VALUE", help="The same as in the commands below. Without a command, the models are listed."
)
@click.pass_context
def models(context: click.Context, models: str | None) -> None:
    """List, inspect, verify, roll back and remove versions on disk."""
    if models is not None:
        context.default_map = {name: {"models": models} for name in COMMANDS}
    if context.invoked_subcommand is None:
        context.invoke(list_models, models=models)


@models.command("list", epilog="Example: convoy models list")
@settings_options("models")
def list_models(settings: Settings) -> None:
    """List every version of every model, and the other entries of the folder or bucket."""
    mirror = open_mirror(settings)
    repository = Repository(Path(settings.models) if mirror is None else mirror.sync())
    passed_over = repository.scan().passed_over if mirror is None else mirror.passed_over
    for path, reason in sorted(passed_over.items()):
        echo_line(f"{path}: skipped, {reason}")
    for name in _model_names(repository, settings, None):
        for version in repository.versions(name):
            echo_line(_version_line(repository, name, version))
        for version in repository.withdrawn_versions(name):
            echo_line(f"{name} {version}: withdrawn by a rollback")


@models.command(epilog="Example: convoy models show mnist-lenet5 --json")
@settings_options("models")
@click.argument("model", shell_complete=complete_model_name)
@click.option("--version", type=int, help="Default: the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def show(settings: Settings, model: str, version: int | None, as_json: bool) -> None:
    """Show one version of MODEL: input, labels, graphs with their accuracies, and provenance."""
    repository = Repository(local_models(settings))
    number = _resolve_version(repository, settings, model, version)
    manifest = repository.open(model, number).manifest
    if as_json:
        click.echo(json.dumps({"model": model, "version": number, **manifest.model_dump(exclude_none=True)}, indent=2))
        return
    echo_line(f"{model} {number}: {_describe_manifest(manifest)}")
    preprocessing = manifest.preprocessing.model_dump(exclude_none=True)
    echo_line("preprocessing: " + ", ".join(f"{key} {value}" for key, value in preprocessing.items()))
    for variant in manifest.variants:
        echo_line(_variant_line(variant))
    origin = manifest.provenance
    trained = "" if origin.dataset is None else f", data set {origin.dataset}"
    echo_line(f"from {origin.source}, {origin.created_utc}{trained}")


@models.command(epilog="Example: convoy models verify mnist-lenet5")
@settings_options("models")
@click.argument("model", required=False, shell_complete=complete_model_name)
@click.option("--version", type=int, help="Verify only this version.")
def verify(settings: Settings, model: str | None, version: int | None) -> None:
    """Verify checksums, loading, and the predictions for stored samples. The exit code is 1 if there is a fault."""
    from service.loaded_models.verify_version import verify as verify_version

    repository = Repository(local_models(settings))
    all_ok = True
    for name in _model_names(repository, settings, model):
        selected = None if version is None else [_resolve_version(repository, settings, name, version)]
        for number in selected or repository.versions(name):
            for finding in verify_version(repository, name, number):
                all_ok &= finding.is_ok
                echo_line(f"{name} {number} {finding.subject}: {'' if finding.is_ok else 'WRONG: '}{finding.text}")
    sys.exit(not all_ok)


@models.command(epilog="Example: convoy models rollback mnist-lenet5")
@settings_options("models", "state")
@click.argument("model", shell_complete=complete_model_name)
@click.option(
    "--to", "target_version", type=int, metavar="VERSION", help="Default: the version before the current one."
)
@click.option("--undo", "is_undo", is_flag=True, help="Return to the newest version.")
def rollback(settings: Settings, model: str, target_version: int | None, is_undo: bool) -> None:
    """Make an older version of MODEL the default, also in a running service.

    With --state (CONVOY_STATE) the version is written there. Without it, the newer folders are hidden until --undo.
    """
    if is_undo and target_version is not None:
        raise click.UsageError("--undo returns to the newest version: leave out --to.")
    state = None if settings.state is None else StateFile(settings.state)
    if state is None:
        _reject_bucket(settings, "name the file that the service watches with --state")
    repository = Repository(local_models(settings))
    report = undo_rollback(repository, state, model) if is_undo else roll_back(repository, state, model, target_version)
    echo_line(report)


@models.command("prune", epilog="Example: convoy models prune mnist-lenet5 --keep 3")
@settings_options("models", "state")
@click.argument("model", required=False, shell_complete=complete_model_name)
@click.option("--keep", required=True, type=click.IntRange(1), metavar="N", help="Number of newest versions to keep.")
def prune_models(settings: Settings, model: str | None, keep: int) -> None:
    """Remove all but the newest N versions of MODEL, or of every model.

    Versions that --state (CONVOY_STATE) names are kept.
    """
    _reject_bucket(settings, "remove them there")
    repository = Repository(local_models(settings))
    state = None if settings.state is None else StateFile(settings.state)
    for name in _model_names(repository, settings, model):
        for line in prune_versions(repository, state, name, keep):
            echo_line(line)


def _model_names(repository: Repository, settings: Settings, model: str | None) -> list[str]:
    names = repository.models()
    if not names:
        raise UnknownModel(f"There is no model in {settings.models}.", "Add a model as <name>/<version>/.")
    if model is not None and model not in names:
        raise UnknownModel.suggesting(model, names, settings.models)
    return names if model is None else [model]


def _resolve_version(repository: Repository, settings: Settings, model: str, version: int | None) -> int:
    (name,) = _model_names(repository, settings, model)
    numbers = repository.versions(name)
    if version is not None and version not in numbers:
        known = ", ".join(map(str, numbers))
        raise UnknownVersion(f"Model '{name}' has no version {version}; it has {known}.", "Name one of them.")
    return max(numbers) if version is None else version


def _reject_bucket(settings: Settings, hint: str) -> None:
    if is_url(settings.models):
        raise click.UsageError(f"The versions are in a bucket, {settings.models}: {hint}.")


def _version_line(repository: Repository, name: str, version: int) -> str:
    try:
        return f"{name} {version}: {_describe_manifest(repository.open(name, version).manifest)}"
    except BrokenVersion as error:
        return f"{name} {version}: BROKEN: {error.message}"


def _describe_manifest(manifest: Manifest) -> str:
    accuracy, metrics = manifest.variants[0].test_accuracy, manifest.metrics
    known = "" if accuracy is None else f", test accuracy {accuracy:.2%}"
    if accuracy is None and {"check_accuracy", "check_images"} <= metrics.keys():
        known = f", accuracy {metrics['check_accuracy']:.2%} on {metrics['check_images']:.0f} given images"
    others = "".join(f", {variant.precision}" for variant in manifest.variants[1:])
    return f"{'x'.join(map(str, manifest.input.shape))} -> {manifest.classes} classes{known}{others}"


def _variant_line(variant: Variant) -> str:
    parts = [f"{variant.precision}: {variant.file}, {variant.bytes:,} bytes, sha256 {variant.sha256[:12]}..."]
    if variant.test_accuracy is not None:
        parts.append(f"test accuracy {variant.test_accuracy:.2%}")
    if variant.parity is not None:
        parts.append(f"differs by {variant.parity.max_abs_difference:.1g} at most")
    return ", ".join(parts) + ("" if variant.automatic else "; used only if CONVOY_PRECISION names it")
