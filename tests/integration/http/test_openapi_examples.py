"""The content of /docs is correct: every example works, and every response has the documented schema."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from service.api import schemas
from service.api.v1 import schemas as schemas_v1
from service.api.v1.predict import Predict
from service.api.v2 import schemas as schemas_v2
from tests.integration.conftest import SHAPE
from tests.support.images import image_bytes, random_pixels
from tests.support.service_process import RunningService

Json = dict[str, Any]
REPLY_SCHEMAS = {"row": schemas_v1.RowsReply, "column": schemas_v1.ColumnReply, "labels": schemas_v1.RowsReply}


@pytest.fixture(scope="module")
def openapi(service: RunningService) -> Json:
    return service.client.get("/openapi.json").json()  # type: ignore[no-any-return]


def check_schema(reply: httpx.Response, shape: type[BaseModel]) -> None:
    """Checks that the response is successful and has exactly the fields of the schema."""
    assert reply.status_code == 200, reply.text
    shape.model_validate_json(reply.content, strict=True, extra="forbid")


def example_url(path: str) -> str:
    return path.format(model="linear", version="1")


def examples(openapi: Json, name: str) -> Iterator[tuple[str, Any]]:
    """Yields path and body of every use of an example."""
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if name in content.get("examples", {}):
                yield example_url(path), content["examples"][name]["value"]


@pytest.mark.parametrize("name", schemas_v2.INFER_EXAMPLES)
def test_the_examples_of_infer_work(service: RunningService, openapi: Json, name: str) -> None:
    v2_examples = [(path, value) for path, value in examples(openapi, name) if path.startswith("/v2/")]
    assert len(v2_examples) == 2
    for path, value in v2_examples:
        check_schema(service.client.post(path, json=value), schemas_v2.InferReply)


@pytest.mark.parametrize("name", schemas_v1.PREDICT_EXAMPLES)
def test_the_examples_of_predict_work(service: RunningService, openapi: Json, name: str) -> None:
    v1_examples = {path: value for path, value in examples(openapi, name) if path.startswith("/v1/")}
    without_label = v1_examples.keys() - {example_url(Predict.path_with_label)}
    assert len(without_label) == len(v1_examples) - 1 == 2
    for path in without_label:
        check_schema(service.client.post(path, json=v1_examples[path]), REPLY_SCHEMAS[name])


def test_pixels_are_answered_in_the_promised_shapes(service: RunningService) -> None:
    pixels = random_pixels(*SHAPE).tolist()
    tensor = {"name": "image", "shape": [1, *SHAPE], "datatype": "UINT8", "data": [pixels]}
    check_schema(service.client.post("/v2/models/linear/infer", json={"inputs": [tensor]}), schemas_v2.InferReply)
    check_schema(service.client.post("/v1/models/linear:predict", json={"inputs": [pixels]}), schemas_v1.ColumnReply)


def test_own_answers_have_the_promised_shapes(service: RunningService) -> None:
    classify_path = "/api/v1/models/linear/classify"
    check_schema(service.client.post(classify_path, content=image_bytes()), schemas.ClassifyReply)
    files = [("files", image_bytes()), ("files", b"none")]
    check_schema(service.client.post(f"{classify_path}/batch", files=files), schemas.BatchReply)


def test_exactly_the_referenced_schemas_are_defined(openapi: Json) -> None:
    prefix = "#/components/schemas/"
    referenced = {text.removeprefix(prefix) for text in texts(openapi) if text.startswith(prefix)}
    assert referenced == openapi["components"]["schemas"].keys()


def texts(value: object) -> Iterator[str]:
    """Yields all strings in a JSON document except keys."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for element in value:
            yield from texts(element)
    elif isinstance(value, str):
        yield value


def test_no_error_is_promised_in_fastapis_own_shape(openapi: Json) -> None:
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            shape = "ErrorText" if path.startswith(("/v1/", "/v2")) else "ErrorReply"
            schema_refs = {text for text in texts(operation["responses"]) if "/Error" in text or "Validation" in text}
            assert schema_refs <= {f"#/components/schemas/{shape}"}, path


def test_every_operation_has_a_unique_name_and_a_summary(openapi: Json) -> None:
    operations = [operation for methods in openapi["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] and operation["tags"] for operation in operations)
