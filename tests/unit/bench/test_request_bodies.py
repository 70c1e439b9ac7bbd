"""Bodies of every kind rotate, and the responses of all servers are parsed."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.imaging.decode import decode
from tests.bench.errors import CannotMeasure
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import KINDS, Bodies, Sizes, predicted_classes
from tests.bench.sample_images import Samples, load_samples
from tests.support.model_versions import write_digit_model, write_version

BATCH = 4


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    write_digit_model(tmp_path / "models")
    return load_samples(LocalModel(tmp_path / "models", "mnist-lenet5"), 10, None)


@pytest.fixture
def bodies(samples: Samples, tmp_path: Path) -> Bodies:
    return Bodies(samples, tmp_path, Sizes(BATCH, bodies=3))


def test_samples_contain_the_predictions_of_the_model(samples: Samples) -> None:
    assert samples.classes == list(range(10))
    assert np.array_equal(decode(samples.encoded[3], 1, 0, 10**6), samples.tensors[3])


def test_samples_of_another_model_are_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    write_version(tmp_path, "other", 1, (8, 8, 3))
    model = LocalModel(tmp_path, "other")
    with pytest.raises(CannotMeasure, match="--images"):
        load_samples(model, 5, None)
    with pytest.raises(CannotMeasure, match="contains no images"):
        load_samples(model, 5, tmp_path)


def test_few_images_repeat(tmp_path: Path, samples: Samples) -> None:
    write_version(tmp_path, "other", 1, (8, 8, 3))
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(samples.encoded[number])
    samples = load_samples(LocalModel(tmp_path, "other"), 5, tmp_path)
    assert samples.encoded == [samples.encoded[i] for i in (0, 1, 0, 1, 0)]
    assert samples.tensors.shape == (5, 8, 8, 3)
    assert samples.source == "2 photographs"


@pytest.mark.parametrize("kind", KINDS)
def test_the_bodies_of_a_kind_differ(kind: str, bodies: Bodies) -> None:
    body = bodies.get(kind)
    assert len({body.file(number).read_bytes() for number in range(3)}) == 3
    assert body.file(3) == body.file(0)
    assert body.expected == tuple(range(body.images))
    assert body.images in (1, BATCH)


def _rows(*best: int) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[list(best)]


def _v2(best: tuple[int, ...], **kwargs: object) -> dict[str, object]:
    return {"outputs": [{"name": "probabilities", "shape": [len(best), 10], "datatype": "FP32", **kwargs}]}


@pytest.mark.parametrize(
    ("answer", "best"),
    [
        ({"predictions": [{"index": 7, "label": "seven"}, {"index": 1, "label": "one"}]}, (7,)),
        ({"predictions": [{"label": "3", "probability": 0.9}]}, (3,)),
        (
            {"results": [{"predictions": [{"index": 2, "label": "b"}]}, {"predictions": [{"index": 5, "label": "e"}]}]},
            (2, 5),
        ),
        ([[{"label": "4"}]], (4,)),
        (_v2((6, 1), data=_rows(6, 1).ravel().tolist()), (6, 1)),
    ],
)
def test_every_form_of_answer_is_understood(answer: object, best: tuple[int, ...]) -> None:
    assert predicted_classes(json.dumps(answer).encode(), None) == best


def test_a_binary_answer_is_understood() -> None:
    head = json.dumps(_v2((8, 0), parameters={"binary_data_size": 80})).encode()
    assert predicted_classes(head + _rows(8, 0).tobytes(), str(len(head))) == (8, 0)
