"""POST .../explain: explains one image's prediction, as JSON with images in base64, or as one PNG."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import SkipValidation
from pydantic.json_schema import SkipJsonSchema
from starlette.types import Receive, Scope, Send

from service.api.fast_router import EndpointResponse
from service.api.http.body import BodyReader
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.parameters import add_form_fields, query_parameters
from service.api.http.request_headers import apply_timeout_and_priority, header
from service.api.http.response_encoder import ResponseEncoder
from service.api.http.responses import JSON_HEADERS, Headers, json_bytes, send_response
from service.api.native.explain_schemas import METHODS, ExplainReply, FeaturesReply, Method, OcclusionReply
from service.api.openapi.operations import BINARY, IMAGE_BODY, ModelName, VersionParameter, prediction_responses
from service.api.schemas import ErrorReply
from service.classification.explainer import Explainer, Explanation, FeatureMaps, OcclusionHeatmap
from service.classification.request_context import RequestContext
from service.errors import BadParameter
from service.imaging.visualization import encode_png, grid, overlay_heatmap, stack_vertically, upscale
from service.inference.feature_maps import LayerImages

DEFAULT_METHOD: Method = "occlusion"
PARAMETERS = ("class", "method", "version")
MAX_GRID_IMAGES = 64
PNG = b"image/png"
PNG_HEADERS: Headers = [(b"content-type", PNG)]
RESPONSES = prediction_responses(
    ErrorReply, BadParameter, "The explanation, by method.", content={"image/png": {"schema": BINARY}}
)
MethodParameter = Annotated[
    Method,
    SkipValidation,
    Query(
        description="`occlusion`: which pixels speak for a class, found by covering the image patch by patch. "
        "`features`: filters and feature maps, if the version was published with them. `input`: the image as the "
        "network sees it, which the other methods return as well."
    ),
]
ClassParameter = Annotated[
    str | SkipJsonSchema[None],
    Query(alias="class", description="For `occlusion`: label or index of the class. Default: the most probable class."),
]


class Explain:
    """Explains one image: the raw body, or the file of a multipart form."""

    path = "/api/v1/models/{model}/explain"

    def __init__(self, explainer: Explainer, body_reader: BodyReader, encoder: ResponseEncoder) -> None:
        self._explainer = explainer
        self._body_reader = body_reader
        self._encoder = encoder
        self.router = _routes(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = query_parameters(scope, PARAMETERS)
        parse_parameters(query)
        image, fields = await self._body_reader.read_image(scope, receive)
        method, version, class_name = parse_parameters(add_form_fields(query, fields, PARAMETERS))
        as_png = PNG in header(scope, b"accept")
        with self._explainer.context(scope["path_params"]["model"], version) as context:
            apply_timeout_and_priority(scope, context)
            with CancelOnDisconnect(scope), self._explainer.permit(context):
                explanation = await self._explain(method, context, image, class_name)
                # On the explainer's thread and with the permit, because it takes 100 ms for a large image.
                encode = _to_png if as_png else _to_json
                body = await self._explainer.run_on_thread(context, encode, explanation, method, context)
                self._encoder.reserve(scope, len(body))  # a slow client may keep it in memory
        await send_response(send, body, context, PNG_HEADERS if as_png else JSON_HEADERS)

    async def _explain(self, method: str, context: RequestContext, image: bytes, class_name: str | None) -> Explanation:
        if method == "occlusion":
            return await self._explainer.occlude(context, image, class_name)
        if method == "features":
            return await self._explainer.feature_maps(context, image)
        return await self._explainer.preprocessed(context, image)


def _routes(explain: Explain) -> APIRouter:
    """Returns the route that FastAPI documents. The fast router calls the endpoint without it."""
    router = APIRouter(tags=["classification"])

    @router.post(
        Explain.path,
        operation_id="explain",
        summary="Explain one answer",
        description="Returns JSON with images in base64, or one PNG with `Accept: image/png`. It runs as background "
        "work in the model's queue, with limited cost. While other explanations are running, it is rejected with 429.",
        response_model=OcclusionReply | FeaturesReply | ExplainReply,
        responses=RESPONSES,
        openapi_extra=IMAGE_BODY,
    )
    async def explain_one(
        model: ModelName,
        method: MethodParameter = DEFAULT_METHOD,
        class_name: ClassParameter = None,
        version: VersionParameter = None,
    ) -> Response:
        return EndpointResponse(explain)

    return router


def parse_parameters(parameters: Mapping[str, str]) -> tuple[str, str | None, str | None]:
    """Returns `method`, `version` and `class`. Raises BadParameter for an unknown method, or for `class` with a method
    other than `occlusion`."""
    method, version = parameters.get("method", DEFAULT_METHOD), parameters.get("version")
    class_name = parameters.get("class")
    if method not in METHODS:
        raise BadParameter(f"Unknown method '{method}'; the methods are {', '.join(METHODS)}.")
    if class_name is not None and method != "occlusion":
        raise BadParameter("'class' is allowed only with the method 'occlusion'.")
    return method, version, class_name


def _to_json(explanation: Explanation, method: str, context: RequestContext) -> bytes:
    """Encodes the explanation in the format of `ExplainReply` and its subclasses."""
    image = explanation.image
    height, width, channels = image.shape
    reply: dict[str, Any] = {
        "model": context.loaded.model,
        "version": context.loaded.version,
        "method": method,
        "input": {"height": height, "width": width, "channels": channels, "png": _base64(encode_png(image))},
    }
    if isinstance(explanation, OcclusionHeatmap):
        reply |= _heatmap_fields(explanation)
    if isinstance(explanation, FeatureMaps):
        filters = explanation.layer_outputs.filters
        reply["filters"] = None if filters is None else _grid_fields(filters)
        reply["layers"] = [_grid_fields(layer) for layer in explanation.layer_outputs.layers]
    return json_bytes(reply)


def _heatmap_fields(heatmap: OcclusionHeatmap) -> dict[str, Any]:
    row, column = np.unravel_index(int(heatmap.values.argmax()), heatmap.values.shape)
    return {
        "explained": heatmap.prediction,
        "heat": _base64(encode_png(overlay_heatmap(heatmap.image, heatmap.values))),
        "peak": {"x": int(column), "y": int(row)},
        "peak_log_odds": float(heatmap.values[row, column]),
        "passes": heatmap.passes,
    }


def _grid_fields(layer: LayerImages) -> dict[str, Any]:
    count, height, width, _ = layer.images.shape
    first_images = layer.images[:MAX_GRID_IMAGES]
    return {
        "layer": layer.layer,
        "count": count,
        "shown": len(first_images),
        "height": height,
        "width": width,
        "png": _base64(encode_png(grid(first_images))),
    }


def _to_png(explanation: Explanation, method: str, context: RequestContext) -> bytes:
    """Encodes the explanation as one PNG, enlarged for viewing."""
    if isinstance(explanation, OcclusionHeatmap):
        return encode_png(upscale(overlay_heatmap(explanation.image, explanation.values)))
    if isinstance(explanation, FeatureMaps):
        outputs = explanation.layer_outputs
        layers = outputs.layers if outputs.filters is None else [outputs.filters, *outputs.layers]
        grids = (grid(layer.images[:MAX_GRID_IMAGES]) for layer in layers)
        return encode_png(stack_vertically([explanation.image, *grids]))
    return encode_png(upscale(explanation.image))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
