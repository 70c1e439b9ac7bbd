"""A binary network of two classes of Imagenette, trained with plain Keras, is exported and served."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from service.imaging.preprocess import preprocess
from service.model_store.manifest import Input, Preprocessing
from tests.support.service_process import RunningService
from training.export.exporter import export, options_for
from training.export.keras_files import load_network
from training.export.sources import Source

pytestmark = pytest.mark.slow
SIDE, TRAINED, SERVED = 48, 250, 40
SYNSETS = {"chain saw": "n03000684", "golf ball": "n03445777"}
MODEL_INPUT = Input(height=SIDE, width=SIDE, channels=3)


def photos(data_dir: Path, split: str, count: int) -> tuple[list[Path], np.ndarray]:
    """Returns files that alternate between the two classes, and their labels: 0 for the first class, 1 for the
    second."""
    folders = [data_dir / "imagenette2-160" / split / synset for synset in SYNSETS.values()]
    files = [sorted(folder.iterdir())[:count] for folder in folders]
    return [file for pair in zip(*files, strict=True) for file in pair], np.tile([0, 1], count)


def pixels(files: list[Path]) -> np.ndarray:
    images = (np.asarray(Image.open(file).convert("RGB")) for file in files)
    return np.stack([preprocess(image, MODEL_INPUT, Preprocessing()) for image in images])


def trained_network(data_dir: Path) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            *(
                layer
                for filters in (16, 32, 32)
                for layer in (layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D())
            ),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    files, labels = photos(data_dir, "train", TRAINED)
    model.fit(pixels(files), labels, batch_size=32, epochs=8, verbose=0)
    return model


def test_a_binary_network_is_trained_exported_and_served(data_dir: Path, tmp_path: Path) -> None:
    trained_network(data_dir).save(tmp_path / "saw-or-ball.keras")
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in SYNSETS))
    source = Source("saw-or-ball.keras", load_network(tmp_path / "saw-or-ball.keras"))
    options = options_for(
        source,
        name="saw-or-ball",
        models_dir=tmp_path / "models",
        labels=tmp_path / "labels.txt",
        images=data_dir / "imagenette2-160" / "val" / SYNSETS["golf ball"],
    )
    export(source, options, print)
    files, labels = photos(data_dir, "val", SERVED)
    names = list(SYNSETS)
    with RunningService(tmp_path / "models") as service:
        replies = [
            service.client.post("/api/v1/models/saw-or-ball/classify", content=file.read_bytes()).json()
            for file in files
        ]
    best = [reply["predictions"][0] for reply in replies]
    assert all(prediction["probability"] >= 0.5 for prediction in best)
    correct = [prediction["label"] == names[label] for prediction, label in zip(best, labels, strict=True)]
    assert np.mean(correct) > 0.75
    expected = source.model.predict(pixels(files).astype(np.float32), verbose=0)[:, 0]
    second = [next(p["probability"] for p in reply["predictions"] if p["index"] == 1) for reply in replies]
    np.testing.assert_allclose(second, expected, atol=0.1)  # the service decodes like Pillow, but in draft mode
    assert np.median(np.abs(second - expected)) < 1e-4
