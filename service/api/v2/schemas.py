"""JSON schemas of the Open Inference Protocol V2 with Triton's extensions, for requests and responses.

Inference reads and writes this JSON without the schemas. /docs uses the schemas, and tests check that the parser and
the schemas agree.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import EXAMPLE_PNG
from service.api.v2.request_parser import MAX_REQUEST_ID_LENGTH
from service.model_store.manifest import IMAGE, PROBABILITIES


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class Server(BaseModel):
    name: str = Field(examples=["convoy"])
    version: str
    extensions: list[str]


class TensorKind(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 stands for any number.")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(description="Loaded versions, oldest first.")
    platform: str
    inputs: list[TensorKind]
    outputs: list[TensorKind]


class ConfigTensor(BaseModel):
    name: str
    data_type: str
    dims: list[int] = Field(description="Without the batch dimension.")


class ConfigInput(ConfigTensor):
    format: str


class ConfigOutput(ConfigTensor):
    label_filename: str


class DynamicBatching(BaseModel):
    max_queue_delay_microseconds: int


class InstanceGroup(BaseModel):
    name: str
    kind: str
    count: int


class ModelConfig(BaseModel):
    """The part of Triton's model configuration that applies to Convoy."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigInput]
    output: list[ConfigOutput]
    dynamic_batching: DynamicBatching
    instance_group: list[InstanceGroup]
    default_model_filename: str


class Duration(BaseModel):
    """A number of events, and their total duration in nanoseconds."""

    count: int = Field(ge=0)
    ns: int = Field(ge=0)


class InferStatistics(BaseModel):
    """Durations of requests. `compute_input` is decoding, `compute_output` is encoding the response."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class BatchStatistics(BaseModel):
    batch_size: int
    compute_infer: Duration


class VersionStatistics(BaseModel):
    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 for never.")
    inference_count: int = Field(description="Images.")
    execution_count: int = Field(description="Runs of the model.")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class ModelStatistics(BaseModel):
    model_stats: list[VersionStatistics]


class IndexEntry(BaseModel):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Reason why the version is not served.")


class Nothing(BaseModel):
    """An empty object."""


class Part(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True, strict=True)


class IndexRequest(Part):
    ready: bool = False
    """Whether to return only versions that are served."""


class ChangeParameters(Part):
    """`unload_dependents` is the only parameter, because models are loaded exactly as they are on disk."""

    model_config = ConfigDict(extra="forbid")

    unload_dependents: bool = False
    """Sent by Triton's clients. It has no effect, because no model depends on another model."""


class ChangeRequest(Part):
    parameters: ChangeParameters = ChangeParameters()


class InputParameters(Part):
    binary_data_size: int | None = Field(default=None, ge=0)
    """Size in bytes of this tensor, if it follows the JSON instead of being in `data`."""


class InferInput(Part):
    name: Literal[IMAGE]  # type: ignore[valid-type]
    datatype: Literal["UINT8", "BYTES"]
    """UINT8: the pixels of the model's input. BYTES: encoded images, which the service decodes and scales."""
    shape: list[int] = Field(min_length=1)
    """UINT8: [n, height, width, channels]. BYTES: [n]."""
    data: list[Any] | None = None
    """UINT8: whole numbers from 0 to 255, flat or nested. BYTES: images in base64."""
    parameters: InputParameters | None = None


class OutputParameters(Part):
    binary_data: bool | None = None
    """Whether to return this tensor as raw bytes after the JSON."""
    classification: int | None = Field(default=None, ge=0)
    """Number of most probable classes to return, each as "probability:index:label"."""


class WantedOutput(Part):
    name: Literal[PROBABILITIES]  # type: ignore[valid-type]
    parameters: OutputParameters | None = None


class InferParameters(Part):
    binary_data_output: bool | None = None
    """Whether to return the tensor as raw bytes after the JSON."""
    timeout: int | None = Field(default=None, ge=0)
    """Microseconds within which the request must be answered; otherwise 504."""


class InferBody(Part):
    id: str | None = Field(default=None, max_length=MAX_REQUEST_ID_LENGTH)
    """Returned in the response."""
    parameters: InferParameters | None = None
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = Field(default=None, max_length=1)


ENCODED_IMAGE: dict[str, Any] = {"name": IMAGE, "datatype": "BYTES", "shape": [1], "data": [EXAMPLE_PNG]}
INFER_EXAMPLES: dict[str, Any] = {
    "probabilities": {"summary": "An image to all probabilities", "value": {"id": "1", "inputs": [ENCODED_IMAGE]}},
    "labels": {
        "summary": "Two images to their three best classes",
        "value": {
            "inputs": [ENCODED_IMAGE | {"shape": [2], "data": [EXAMPLE_PNG, EXAMPLE_PNG]}],
            "outputs": [{"name": PROBABILITIES, "parameters": {"classification": 3}}],
        },
    },
}


class InferOutput(BaseModel):
    name: Literal[PROBABILITIES]  # type: ignore[valid-type]
    datatype: Literal["FP32", "BYTES"]
    shape: list[int] = Field(description="[n, classes]")
    data: list[float] | list[str] = Field(description="Row by row.")


class InferReply(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]
