"""JSON schemas of TensorFlow Serving's REST API and KServe V1, for requests and responses.

Inference reads and writes this JSON without the schemas. /docs uses the schemas, and tests check that the parser and
the schemas agree.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import EXAMPLE_PNG, Prediction
from service.model_store.manifest import IMAGE


class _Part(BaseModel):
    """A part of a request. Unknown fields are rejected."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class Base64Image(_Part):
    b64: str
    """The bytes of an encoded image in base64."""


Image = Base64Image | list[Any]


class NamedImage(_Part):
    image: Image


class PredictParameters(_Part):
    top_k: int = Field(default=0, ge=0)
    """Number of most probable classes to return by name. 0: all probabilities."""


class _Request(BaseModel):
    """A request. Unknown fields are ignored, as in TensorFlow Serving."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="ignore")


class PredictRows(_Request):
    """Row format: one value per image."""

    instances: list[Image | NamedImage] = Field(min_length=1)
    signature_name: Literal["serving_default", ""] | None = None
    parameters: PredictParameters | None = None


class NamedImages(_Part):
    image: list[Image] = Field(min_length=1)


class PredictColumn(_Request):
    """Column format: all images as one value."""

    inputs: list[Image | NamedImage] | NamedImages
    signature_name: Literal["serving_default", ""] | None = None
    parameters: PredictParameters | None = None


PREDICT_EXAMPLES: dict[str, Any] = {
    "row": {"summary": "An image to all probabilities", "value": {"instances": [{"b64": EXAMPLE_PNG}]}},
    "column": {"summary": "The same as a column", "value": {"inputs": {IMAGE: [{"b64": EXAMPLE_PNG}]}}},
    "labels": {
        "summary": "Two images to their three best classes",
        "value": {"instances": [{IMAGE: {"b64": EXAMPLE_PNG}}] * 2, "parameters": {"top_k": 3}},
    },
}

Answers = list[list[float]] | list[list[Prediction]]


class RowsReply(BaseModel):
    predictions: Answers


class ColumnReply(BaseModel):
    outputs: Answers


class ModelNames(BaseModel):
    models: list[str]


class Outcome(BaseModel):
    error_code: str = Field(examples=["OK"])
    error_message: str


class VersionState(BaseModel):
    version: str
    state: str = Field(examples=["AVAILABLE"])
    status: Outcome


class ModelStatus(BaseModel):
    """TensorFlow Serving's field `model_version_status`, and KServe's `name` and `ready`."""

    name: str
    ready: bool
    model_version_status: list[VersionState]


class ModelSpec(BaseModel):
    name: str
    signature_name: str
    version: str


class Dimension(BaseModel):
    size: str = Field(examples=["-1"])
    name: str


class TensorShape(BaseModel):
    dim: list[Dimension]
    unknown_rank: bool


class TensorInfo(BaseModel):
    dtype: str = Field(examples=["DT_UINT8"])
    tensor_shape: TensorShape
    name: str


class Signature(BaseModel):
    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str


class SignatureMap(BaseModel):
    signature_def: dict[str, Signature]


class Metadata(BaseModel):
    signature_def: SignatureMap


class ModelMetadata(BaseModel):
    model_spec: ModelSpec
    metadata: Metadata
