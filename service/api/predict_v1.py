"""TensorFlow Serving's REST API, which is also KServe V1: instances in, predictions out.

Source: tensorflow.org/tfx/serving/api_rest (row and column format, base64 values, model status).
"""

import base64
import binascii
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from service.api.body import read_body
from service.api.compression import packed, unpacked
from service.api.connection import UntilHangUp
from service.api.reply import JSON_HEADERS, log_journey, send_answer
from service.classifier import Classifier, Row, all_good, best
from service.errors import BadTensor
from service.journey import Journey
from service.manifest import IMAGE, Input
from service.registry import Registry

ALLOWED = {"signature_name", "instances", "inputs", "parameters"}


class Predict:
    """POST :predict with `instances` (one entry an image) or `inputs` (all images as one value)."""

    path = "/v1/models/{model}:predict"
    path_with_version = "/v1/models/{model}/versions/{version}:predict"

    def __init__(self, classifier: Classifier, max_body_bytes: int) -> None:
        self._classifier = classifier
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        where = scope["path_params"]
        body = unpacked(scope, await read_body(scope, receive, self._max_body_bytes), self._max_body_bytes)
        with self._classifier.journey(where["model"], where.get("version")) as journey:
            request = _document(body)
            by_row = "instances" in request
            with UntilHangUp(receive):
                rows = await self._rows(journey, _values(request["instances" if by_row else "inputs"], by_row))
            answer = _answer(rows, journey.served.labels, _top_k(request))
            reply = orjson.dumps({"predictions" if by_row else "outputs": answer}, option=orjson.OPT_SERIALIZE_NUMPY)
        log_journey(scope, journey)
        body, headers = packed(scope, reply)
        await send_answer(send, body, journey, JSON_HEADERS + headers)

    async def _rows(self, journey: Journey, values: list[Any]) -> Row:
        pictures = [_picture(value) for value in values if isinstance(value, dict)]
        if len(pictures) == len(values):
            return all_good(await self._classifier.predict_many(journey, pictures))
        if pictures:
            raise BadTensor("Arrays and base64 pictures cannot be mixed in one request.")
        tensor = _tensor(values, journey.served.manifest.input)
        journey.decoded()
        return await self._classifier.infer(journey, tensor)


def v1_routes(registry: Registry) -> APIRouter:
    """Status in TensorFlow Serving's form, the list of models in KServe's."""
    router = APIRouter(prefix="/v1", tags=["TensorFlow Serving and KServe V1"])

    @router.get("/models", summary="Names of the models")
    async def names() -> dict[str, list[str]]:
        return {"models": [versions[0].model for versions in registry.all()]}

    @router.get("/models/{model}", summary="Status of a model's versions")
    @router.get("/models/{model}/versions/{version}", summary="Status of one version")
    async def status(model: str, version: str | None = None) -> dict[str, Any]:
        wanted = registry.get(model, version)
        versions = next(versions for versions in registry.all() if versions[0].model == model)
        available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        shown = [served.version for served in versions if version is None or served is wanted]
        return {"model_version_status": [{"version": name} | available for name in shown]}

    return router


def _document(body: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadTensor(f"The request is not JSON: {error}.") from None
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise BadTensor("The request must be an object with either `instances` or `inputs`.")
    if unknown := request.keys() - ALLOWED:
        raise BadTensor(f"There is no field '{min(unknown)}'; there are {', '.join(sorted(ALLOWED))}.")
    return request


def _values(given: Any, by_row: bool) -> list[Any]:
    """One value an image; a named input, {"image": value}, is as good as the value."""
    if not by_row and isinstance(given, dict) and given.keys() == {IMAGE}:
        given = given[IMAGE]
    if not isinstance(given, list) or not given:
        raise BadTensor("`instances` or `inputs` must be a list of at least one image.")
    named = (value[IMAGE] if isinstance(value, dict) and value.keys() == {IMAGE} else value for value in given)
    return list(named)


def _picture(value: dict[str, Any]) -> bytes:
    try:
        (key,) = value
        return base64.b64decode(value["b64"] if key == "b64" else None, validate=True)  # type: ignore[arg-type]
    except (ValueError, TypeError, binascii.Error):
        raise BadTensor('A picture must be given as {"b64": "<base64>"}.') from None


def _tensor(values: list[Any], to: Input) -> NDArray[np.uint8]:
    try:
        array = np.array(values)
    except ValueError:
        raise BadTensor(f"The images must all have the shape {list(to.shape)}.") from None
    if array.shape[1:] != to.shape:
        raise BadTensor(f"The images have shape {list(array.shape[1:])}; it must be {list(to.shape)}.")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise BadTensor("Pixels must be whole numbers from 0 to 255.")
    return array.astype(np.uint8)


def _top_k(request: dict[str, Any]) -> int:
    parameters = request.get("parameters", {})
    top_k = parameters.get("top_k", 0) if isinstance(parameters, dict) else None
    if type(top_k) is not int or top_k < 0:
        raise BadTensor("`parameters` may hold `top_k`, a whole number, and nothing else of use here.")
    return top_k


def _answer(rows: Row, labels: tuple[str, ...], top_k: int) -> Any:
    return [best(row, labels, top_k) for row in rows] if top_k else np.ascontiguousarray(rows)
