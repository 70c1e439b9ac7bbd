"""Creates finished runs with given figures, without training."""

from pathlib import Path

from training.atomic_files import write_json
from training.recipes.base import Recipe
from training.runs.run_folder import Run, start_run


def finished_run(runs_dir: Path, recipe: Recipe) -> Run:
    counts = {"training_images": 500, "validation_images": 100, "holdout_images": 50, "test_images": 250}
    info = {
        "dataset": {"name": recipe.dataset, "title": "Pets", "note": None, "data_note": None, **counts},
        "labels": ["cat", "dog", "ox"],
        "libraries": {"keras": "3.15.1"},
        "seed": recipe.seed,
        "machines": [
            {"first_epoch": 1, "processor": "Xeon", "cores": 2},
            {"first_epoch": 2, "processor": "EPYC", "cores": 2},
        ],
    }
    run = start_run(runs_dir, recipe, info)
    row = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.6, "learning_rate": 0.1}
    run.write_history([{"epoch": epoch, **row, "seconds": 2.0, "images_per_s": 250.0} for epoch in (1, 2)])
    validation = {"images": 100, "accuracy": 0.6}
    metrics = {"test": {"accuracy": 0.75}, "validation": validation, "weights_of_epoch": 2, "training_seconds": 4.0}
    write_json(run.metrics_path, metrics)
    return run
