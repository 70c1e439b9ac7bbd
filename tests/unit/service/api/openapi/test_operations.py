"""FastAPI documents each route for predictions: parameters, bodies, and responses by status and content type."""

from pathlib import Path
from typing import Any

import pytest

from service.api.native.classify import Classify, ClassifyBatch
from service.api.native.explain import Explain
from service.api.v1.predict import Predict
from service.api.v2.infer import Infer
from service.app import create_app
from service.model_store.desired_state import StateFile
from service.settings import Settings
from service.workers.worker_status import WorkerStatusStore

Json = dict[str, Any]
MODEL, VERSION = "path model*", "path version*"
TOP_K = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
TEXT = {"type": "string"}
METHOD = {"type": "string", "enum": ["input", "occlusion", "features"], "default": "occlusion"}
JSON_LENGTH = {"header Inference-Header-Content-Length": {"type": "integer", "minimum": 0}}
NATIVE, V2, V1 = "classification", "Open Inference Protocol V2", "TensorFlow Serving and KServe V1"
RAW, IMAGE, FORM, JSON = "application/octet-stream", "image/*", "multipart/form-data", "application/json"
STATUSES = {"200", "400", "404", "413", "415", "429", "500", "503", "504"}


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return openapi_of(tmp_path_factory.mktemp("service"))


def openapi_of(folder: Path, **settings: Any) -> Json:
    app = create_app(Settings(**settings), WorkerStatusStore(folder), StateFile(folder / "state.json"))
    return app.openapi()


def parameters_of(operation: Json) -> Json:
    """Returns a summary of the parameters' schemas by place and name. A star marks required parameters."""
    keys = TOP_K.keys() | METHOD.keys()
    return {
        f"{entry['in']} {entry['name']}{'*' * entry['required']}": {
            key: value for key, value in entry["schema"].items() if key in keys
        }
        for entry in operation["parameters"]
    }


@pytest.mark.parametrize(
    ("path", "name", "tag", "parameters"),
    [
        (Classify.path, "classify", NATIVE, {MODEL: TEXT, "query top_k": TOP_K, "query version": TEXT}),
        (ClassifyBatch.path, "classify_batch", NATIVE, {MODEL: TEXT, "query top_k": TOP_K, "query version": TEXT}),
        (
            Explain.path,
            "explain",
            NATIVE,
            {MODEL: TEXT, "query method": METHOD, "query class": TEXT, "query version": TEXT},
        ),
        (Infer.path, "infer", V2, {MODEL: TEXT} | JSON_LENGTH),
        (Infer.path_with_version, "infer_version", V2, {MODEL: TEXT, VERSION: TEXT} | JSON_LENGTH),
        (Predict.path, "predict", V1, {MODEL: TEXT}),
        (Predict.path_with_version, "predict_version", V1, {MODEL: TEXT, VERSION: TEXT}),
        (Predict.path_with_label, "predict_label", V1, {MODEL: TEXT, VERSION: TEXT}),
    ],
)
def test_parameters(openapi: Json, path: str, name: str, tag: str, parameters: Json) -> None:
    operation = openapi["paths"][path]["post"]
    assert (operation["operationId"], operation["tags"]) == (name, [tag])
    assert parameters_of(operation) == parameters


@pytest.mark.parametrize(
    ("path", "bodies", "answers"),
    [
        (Classify.path, {RAW, IMAGE, FORM}, {JSON: ["ClassifyReply"]}),
        (ClassifyBatch.path, {FORM, "BatchRequest"}, {JSON: ["BatchReply"]}),
        (
            Explain.path,
            {RAW, IMAGE, FORM},
            {JSON: ["OcclusionReply", "FeaturesReply", "ExplainReply"], "image/png": []},
        ),
        (Infer.path, {RAW, "InferBody"}, {JSON: ["InferReply"], RAW: []}),
        (Infer.path_with_version, {RAW, "InferBody"}, {JSON: ["InferReply"], RAW: []}),
        (Predict.path, {"PredictRows", "PredictColumn"}, {JSON: ["RowsReply", "ColumnReply"]}),
        (Predict.path_with_version, {"PredictRows", "PredictColumn"}, {JSON: ["RowsReply", "ColumnReply"]}),
        (Predict.path_with_label, {"PredictRows", "PredictColumn"}, {JSON: ["RowsReply", "ColumnReply"]}),
    ],
)
def test_bodies_and_answers(openapi: Json, path: str, bodies: set[str], answers: dict[str, list[str]]) -> None:
    operation = openapi["paths"][path]["post"]
    content = operation["requestBody"]["content"]
    assert operation["requestBody"]["required"]
    assert {name for kind, entry in content.items() for name in shapes(entry) or [kind]} == bodies
    success = operation["responses"]["200"]
    assert {kind: shapes(entry) for kind, entry in success["content"].items()} == answers
    assert {"Server-Timing", "Model-Digest"} <= success["headers"].keys()


def shapes(entry: Json) -> list[str]:
    """Returns the names of the schemas to which the entry of a content type refers."""
    schema = entry["schema"]
    return [ref["$ref"].rsplit("/")[-1] for ref in schema.get("anyOf", [schema]) if "$ref" in ref]


@pytest.mark.parametrize("path", [Classify.path, ClassifyBatch.path, Explain.path])
def test_errors_of_convoys_own_protocol(openapi: Json, path: str) -> None:
    responses = openapi["paths"][path]["post"]["responses"]
    assert responses.keys() == STATUSES | {"422"}
    assert responses["422"]["description"] == "`bad_parameter`"
    assert all(shapes(responses[status]["content"][JSON]) == ["ErrorReply"] for status in responses.keys() - {"200"})


@pytest.mark.parametrize("path", [Infer.path, Infer.path_with_version, Predict.path, Predict.path_with_label])
def test_errors_of_foreign_protocols(openapi: Json, path: str) -> None:
    responses = openapi["paths"][path]["post"]["responses"]
    assert responses.keys() == STATUSES
    assert responses["400"]["description"] == "`bad_tensor` or `bad_image` or `bad_request`"
    assert all(shapes(responses[status]["content"][JSON]) == ["ErrorText"] for status in responses.keys() - {"200"})


def test_schemas_of_bodies_that_fastapi_does_not_read_are_included(openapi: Json) -> None:
    schemas = openapi["components"]["schemas"]
    assert {"BatchRequest", "EncodedImage", "InferBody", "PredictRows", "PredictColumn", "IndexRequest"} <= set(schemas)
    assert not {name for name in schemas if "Validation" in name}


def test_keys_are_documented_where_they_are_needed(openapi: Json, tmp_path: Path) -> None:
    operation = openapi_of(tmp_path, keys="shop inference 0123456789abcdef")["paths"][Infer.path]["post"]
    assert operation["security"] == [{"key": []}]
    assert operation["responses"]["401"]["description"] == "`unauthenticated`"
    assert shapes(operation["responses"]["403"]["content"][JSON]) == ["ErrorText"]
    assert "security" not in openapi["paths"][Infer.path]["post"]
