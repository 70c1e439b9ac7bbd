"""Why that answer? One image to its explanation, as JSON with images in base64, or as one PNG."""

import asyncio
import base64
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from starlette.types import Receive, Scope, Send

from service.api.http.body import read_image
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.request_headers import apply_timeout_and_priority, header
from service.api.http.responses import JSON_HEADERS, Headers, json_bytes, send_response
from service.api.native.explain_schemas import METHODS
from service.classification.explainer import Explainer, Explanation, FeatureMaps, OcclusionHeatmap
from service.classification.request_context import RequestContext
from service.errors import BadParameter
from service.imaging.render import encode_png, grid, overlay_heatmap, stack_vertically, upscale
from service.inference.feature_maps import LayerImages

DEFAULT_METHOD = "occlusion"
MAX_GRID_IMAGES = 64
PNG = b"image/png"
PNG_HEADERS: Headers = [(b"content-type", PNG)]


class Explain:
    """POST one image: the raw body, or the file of a multipart form."""

    path = "/api/v1/models/{model}/explain"

    def __init__(self, explainer: Explainer, max_body_bytes: int) -> None:
        self._explainer = explainer
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, version, wanted = query_of(scope)
        image = await read_image(scope, receive, self._max_body_bytes)
        as_png = PNG in header(scope, b"accept")
        with self._explainer.context(scope["path_params"]["model"], version) as context:
            apply_timeout_and_priority(scope, context)
            with CancelOnDisconnect(scope):
                explanation = await self._explain(method, context, image, wanted)
                body = await asyncio.to_thread(_drawn if as_png else _told, explanation, method, context)
        await send_response(send, body, context.timings, PNG_HEADERS if as_png else JSON_HEADERS)

    async def _explain(self, method: str, context: RequestContext, image: bytes, wanted: str | None) -> Explanation:
        if method == "occlusion":
            return await self._explainer.occlude(context, image, wanted)
        if method == "features":
            return await self._explainer.feature_maps(context, image)
        return await self._explainer.preprocessed(context, image)


def query_of(scope: Scope) -> tuple[str, str | None, str | None]:
    """`method`, `version` and `class` of the query. Raises BadParameter for another name or method."""
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    method, version, wanted = query.pop("method", DEFAULT_METHOD), query.pop("version", None), query.pop("class", None)
    if query:
        raise BadParameter(f"There is no parameter '{next(iter(query))}'; there are 'class', 'method' and 'version'.")
    if method not in METHODS:
        raise BadParameter(f"There is no method '{method}'; there are {', '.join(METHODS)}.")
    if wanted is not None and method != "occlusion":
        raise BadParameter("'class' goes with the method 'occlusion' only.")
    return method, version, wanted


def _told(explanation: Explanation, method: str, context: RequestContext) -> bytes:
    """JSON in the shape of schemas_explain."""
    image = explanation.image
    height, width, channels = image.shape
    told: dict[str, Any] = {
        "model": context.loaded.model,
        "version": context.loaded.version,
        "method": method,
        "input": {"height": height, "width": width, "channels": channels, "png": _base64(encode_png(image))},
    }
    if isinstance(explanation, OcclusionHeatmap):
        told |= _told_heat(explanation)
    if isinstance(explanation, FeatureMaps):
        filters = explanation.insides.filters
        told["filters"] = None if filters is None else _told_grid(filters)
        told["layers"] = [_told_grid(layer) for layer in explanation.insides.layers]
    return json_bytes(told)


def _told_heat(heat: OcclusionHeatmap) -> dict[str, Any]:
    row, column = np.unravel_index(int(heat.values.argmax()), heat.values.shape)
    return {
        "explained": heat.prediction,
        "heat": _base64(encode_png(overlay_heatmap(heat.image, heat.values))),
        "peak": {"x": int(column), "y": int(row)},
        "peak_log_odds": float(heat.values[row, column]),
        "passes": heat.passes,
    }


def _told_grid(stack: LayerImages) -> dict[str, Any]:
    count, height, width, _ = stack.images.shape
    shown = stack.images[:MAX_GRID_IMAGES]
    return {
        "layer": stack.layer,
        "count": count,
        "shown": len(shown),
        "height": height,
        "width": width,
        "png": _base64(encode_png(grid(shown))),
    }


def _drawn(explanation: Explanation, method: str, context: RequestContext) -> bytes:
    """One PNG, enlarged for people."""
    if isinstance(explanation, OcclusionHeatmap):
        return encode_png(upscale(overlay_heatmap(explanation.image, explanation.values)))
    if isinstance(explanation, FeatureMaps):
        stacks = [explanation.insides.filters, *explanation.insides.layers]
        return encode_png(
            stack_vertically([explanation.image, *(grid(s.images[:MAX_GRID_IMAGES]) for s in stacks if s is not None)])
        )
    return encode_png(upscale(explanation.image))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
