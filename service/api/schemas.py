"""JSON schemas of Convoy's own protocol, for /docs. The endpoints of the fast router do not use them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.model_store.manifest import Activation

# A white stroke on black, 8 x 8. Every model accepts it, because images are scaled to the input.
EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAAGElEQVR42mNgYOBgEmD+w8TAxMDEwMAAAApeASDSagJWAAAAAElFTkSuQmCC"
)


class EncodedImage(BaseModel):
    """One image of a batch."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(description="The image's bytes in base64.")
    id: str | None = Field(default=None, max_length=256, description="Returned with the image's result.")


class BatchRequest(BaseModel):
    """Many images as JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[EncodedImage] = Field(min_length=1)


BATCH_EXAMPLES: dict[str, Any] = {
    "images": {
        "summary": "Two images, one with an id",
        "value": {"images": [{"id": "first", "data": EXAMPLE_PNG}, {"data": EXAMPLE_PNG}]},
    }
}


class Prediction(BaseModel):
    index: int = Field(examples=[7])
    label: str = Field(examples=["7"])
    probability: float = Field(ge=0, le=1, examples=[0.9998])


class Error(BaseModel):
    code: str = Field(description="Error code. It is stable, so programs can rely on it.", examples=["bad_image"])
    message: str = Field(description="What is wrong, in one sentence.")
    hint: str = Field(description="What to do.")
    reasons: dict[str, str] | None = Field(
        default=None, description="Only from /health/ready with status 503: the reason for each model, worker or task."
    )


class ErrorReply(BaseModel):
    error: Error


class ErrorText(BaseModel):
    """An error of the V1 and V2 protocols."""

    error: str = Field(description="What is wrong, and what to do.", examples=["There is no model 'x'."])
    code: str = Field(description="Error code. It is stable, so programs can rely on it.", examples=["unknown_model"])


class ClassifyReply(BaseModel):
    model: str = Field(examples=["mnist-lenet5"])
    version: str = Field(examples=["1"])
    predictions: list[Prediction] = Field(description="Most probable first. May be empty if labels are independent.")


class BatchResult(BaseModel):
    """One image's predictions, or its error. `id` is the id in the request, or the file name."""

    id: str | None = None
    predictions: list[Prediction] | None = None
    error: Error | None = None


class BatchReply(BaseModel):
    model: str
    version: str
    results: list[BatchResult] = Field(description="In the order of the request.")


class ModelInput(BaseModel):
    height: int
    width: int
    channels: int


class ModelVersion(BaseModel):
    """One loaded version."""

    version: str
    digest: str = Field(
        description="Identifies the content of the version. Its responses carry the same value in the "
        "header Model-Digest."
    )
    default: bool = Field(description="Whether requests without a version use this version.")
    input: ModelInput
    preprocessing: dict[str, Any]
    classes: int
    activation: Activation = Field(
        description="`softmax`: one class is right, and the probabilities sum to 1. `sigmoid`: any number of labels, "
        "each with a probability of its own. `binary`: one of two classes."
    )
    parameters: int | None
    test_accuracy: float | None
    metrics: dict[str, float] = Field(
        description="Metrics recorded at export: `test_accuracy`, or `check_accuracy` on `check_images` images given "
        "by the user, which may have been training images."
    )
    documents: list[str] = Field(
        description="Human-readable files, served at /api/v1/models/{model}/versions/{version}/."
    )
    explanations: list[str] = Field(description="Methods of POST /api/v1/models/{model}/explain.")
    provenance: dict[str, Any]
    precision: str = Field(description="Precision in which the version runs: float32, bfloat16, float16 or int8.")
    engine: str = Field(description="Engine: `cpu` (onnxruntime's own), `openvino`, `cuda` or `tensorrt`.")
    hint: str = Field(description="The data type that OpenVINO may compute in; empty for other engines.")
    engine_ms: dict[str, float] = Field(
        description="Measured milliseconds of a run of 8 images, for each candidate. The engine was chosen from these "
        "times. Empty if there was only one candidate."
    )
    engine_failures: dict[str, str] = Field(description="Candidates that cannot run this graph, and the reasons.")
    provider: str = Field(description="onnxruntime's execution provider.")
    devices: list[str] = Field(description="The device of each worker, such as cpu or cuda:0.")
    nodes: dict[str, int] = Field(description="Number of graph nodes that each execution provider runs. Only on a GPU.")
    threads: int = Field(description="Cores that one run uses.")
    instances: int = Field(description="Maximum number of batches that run at the same time.")
    max_batch_size: int = Field(description="Maximum images per run.")
    batch_ms: dict[int, float] = Field(description="Measured milliseconds of a run, for each batch size.")


class ModelSummary(BaseModel):
    name: str
    default_version: str
    versions: list[str] = Field(description="Newest first.")
    input: ModelInput
    classes: int
    test_accuracy: float | None


class ModelList(BaseModel):
    models: list[ModelSummary]


class ModelDetails(BaseModel):
    name: str
    default_version: str
    labels: list[str] = Field(description="Labels of the default version, by class index.")
    version_labels: dict[str, str] = Field(description="Names that can be used in place of a version's number.")
    versions: list[ModelVersion] = Field(description="Newest first.")


class Health(BaseModel):
    status: str = Field(examples=["ready"])
    warnings: dict[str, str] | None = Field(
        default=None,
        description="Problems that do not prevent serving. The keys are models, workers, versions in the bucket, or "
        "`bucket`; the values are the reasons.",
    )
