"""Every setting of the service, with its default. Each is a flag of `convoy serve` and the variable CONVOY_<NAME>."""

import ipaddress
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16", "int8"]

PREFIX = "CONVOY_"
DEFAULT_PORT = 8000
TRAINING_VARIABLES = {
    f"{PREFIX}{name}" for name in ("DATA", "COORDINATOR", "NUM_PROCESSES", "PROCESS_ID", "JOIN_TIMEOUT_S")
}
# Variables that Kubernetes sets in all pods of a namespace for a service NAME: NAME_SERVICE_HOST, NAME_PORT_80_TCP, ...
KUBERNETES_VARIABLE = re.compile(
    r"CONVOY_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")
HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3}(,\d{1,3})*)?")
OPENVINO_NAMES = {"openvino", "openvinoexecutionprovider"}
DRAIN_MARGIN_S = 3.0
"""Seconds by which the drain timeout exceeds the request timeout, because requests are still accepted in the first
second of a stop, and the process ends after the last answer."""


class Settings(BaseSettings):
    """All settings. They are frozen, because settings do not change while the service runs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True, extra="forbid", allow_inf_nan=False
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all interfaces."""

    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """TCP port to listen on. 0: a free port, which is logged."""

    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path prefix that a proxy uses for the service, such as /convoy, whether or not the proxy strips it."""

    trusted_proxies: str = ""
    """Comma-separated addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are trusted; * for all."""

    models: str = "models"
    """Folder with models/<name>/<version>/..., or a bucket: s3://, gs:// or file:// and a path."""

    bucket_cache: Path | None = None
    """Folder to which the models of a bucket are downloaded. None: a folder in the user's cache."""

    bucket_interval_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds between checks of the bucket for added, changed and removed versions."""

    state: Path | None = None
    """JSON file with the desired state of the models. None: the desired state is lost at a restart."""

    scan_interval_s: float = Field(default=1.0, gt=0)
    """Seconds between checks of the models folder for added, changed and removed versions."""

    latest_versions: int = Field(default=1, ge=1)
    """Number of newest versions of each model to load; the highest version is the default."""

    repository_changes: bool = False
    """Whether clients may load and unload models (POST /v2/repository/models/{model}/load and /unload)."""

    repository_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds within which every worker must carry out a load or unload; otherwise 504."""

    max_batch_size: int = Field(default=0, ge=0, le=1024)
    """Maximum images per run; larger requests are split. 0: 32, or for models faster than 1 ms, 64 to 128."""

    max_queue_images: int = Field(default=1024, ge=1)
    """Maximum images that wait for one model; further requests are rejected with 429."""

    max_input_bytes: int = Field(default=300_000_000, ge=1024)
    """Maximum bytes of decoded images in a worker, for all models together; otherwise 429."""

    latency_budget_ms: float = Field(default=0.0, ge=0)
    """Maximum milliseconds per run. The batch size is limited accordingly when a model is loaded. 0: no limit."""

    max_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """Milliseconds that an idle model waits for a batch to fill. 0: it does not wait."""

    workers: int = Field(default=1, ge=1, le=256)
    """Worker processes, each with all models and its share of the cores. With `cuda:0,1`: one per GPU by default."""

    device: str = "auto"
    """auto: cuda if onnxruntime supports it and a GPU exists, otherwise cpu. `cuda:0,1`: workers on these GPUs."""

    providers: str = ""
    """Execution providers by preference: `tensorrt,cuda`, or only `openvino`. `device` then only names the GPUs."""

    precision: PrecisionChoice = "auto"
    """Precision in which models run. auto: the fastest on the device that the model's manifest allows."""

    gpu_memory_limit_bytes: int = Field(default=0, ge=0)
    """Maximum bytes of GPU memory per model. 0: no limit."""

    tensorrt_cache: Path | None = None
    """Folder for TensorRT engines, which take minutes to build. None: a folder in the user's cache."""

    threads: int = Field(default=0, ge=0)
    """Cores per run of a model. 0: the cores of the container or affinity mask, divided by the workers."""

    decode_threads: int = Field(default=0, ge=0)
    """Threads that decode images, and the same number for images above 2 megapixels. 0: one per usable core."""

    request_timeout_ms: int = Field(default=30_000, ge=1)
    """Milliseconds within which a request must be answered; otherwise 504."""

    max_run_timeouts: int = Field(default=4, ge=0)
    """Duration of a run, in request timeouts, after which liveness fails or the worker is replaced. 0: never."""

    worker_timeout_s: float = Field(default=30.0, ge=0)
    """Seconds of a blocked event loop after which one of several workers is replaced. 0: never."""

    stop_delay_s: float = Field(default=0.0, ge=0)
    """Seconds after SIGTERM in which the service still serves but is not ready, so that load balancers notice."""

    drain_timeout_s: float | None = Field(default=None, ge=0)
    """Seconds after the delay for answering accepted requests. None: request timeout plus 3 s."""

    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Maximum bytes of a request body; otherwise 413."""

    max_inflight_body_bytes: int = Field(default=200_000_000, ge=1024)
    """Maximum bytes of all request bodies and large responses in a worker; further requests get 503 at once."""

    max_response_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Maximum bytes of a response, estimated from images and `top_k` before the model runs; otherwise 413."""

    max_pixels: int = Field(default=25_000_000, ge=1)
    """Maximum pixels per image; twice this per request. WebP, CMYK, progressive JPEG count x2, RLE BMP x8. Else 413."""

    max_header_pixels: int = Field(default=100_000_000, ge=1)
    """Maximum pixels in the header of a JPEG that is decoded at a reduced scale (`jpeg_scale` of the model)."""

    max_decoded_bytes: int = Field(default=0, ge=0)
    """Memory for decoding per worker, 8 bytes per pixel; further images wait. 0: a quarter of the memory limit."""

    max_header_bytes: int = Field(default=32 * 1024, ge=1024)
    """Maximum bytes of request line and headers; otherwise 431."""

    header_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds within which the headers of a request must arrive; otherwise 408."""

    body_timeout_s: float = Field(default=20.0, gt=0)
    """Seconds that a body may fall behind `body_bytes_per_s`; otherwise 408. Also applies to reading responses."""

    body_bytes_per_s: int = Field(default=4096, ge=1)
    """Minimum bytes per second of a slow body or a slow reader."""

    keep_alive_s: int = Field(default=75, ge=1)
    """Seconds that a connection may be idle between requests."""

    max_connections: int = Field(default=0, ge=0)
    """Maximum connections per worker; idle and slow ones are then closed. 0: 4096, or what open files allow."""

    keep_alive_requests: int = Field(default=0, ge=0)
    """Maximum requests per connection; then the client must reconnect, to any worker. 0: no limit."""

    keys: str = ""
    """API keys, each `NAME SCOPES KEY`, separated by semicolons; see `convoy key --help`. Empty: no key required."""

    keys_file: Path | None = None
    """File of API keys, one per line, reloaded when it changes. None: only `keys`."""

    cors_origins: str = ""
    """Comma-separated origins whose web pages may call the service; * for all. Empty: none."""

    allowed_hosts: str = ""
    """Comma-separated names accepted in the header Host; `*.` for subdomains. Addresses are accepted. Empty: all."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is logged; requests are logged at info."""

    log_format: Literal["auto", "json", "text"] = "auto"
    """json: one JSON object per line; text: readable lines. auto: text on a terminal, json elsewhere."""

    log_requests_per_s: int = Field(default=100, ge=0)
    """Maximum request log lines per second, worker and kind: responses, client errors, server errors. 0: all."""

    otlp_endpoint: str = ""
    """OpenTelemetry collector for traces (OTLP over HTTP), such as http://collector:4318. Empty: from OTEL_*."""

    metrics_labels: int = Field(default=1000, ge=0)
    """Classes per model that convoy_predictions_total counts by name; higher indices count as `other`."""

    @property
    def effective_drain_timeout_s(self) -> float:
        """`drain_timeout_s`, or its default: enough for every accepted request to be answered or to time out."""
        default_s = self.request_timeout_ms / 1000 + DRAIN_MARGIN_S
        return default_s if self.drain_timeout_s is None else self.drain_timeout_s

    @property
    def gpus(self) -> tuple[int, ...]:
        """The indices of the GPUs that `device` names; empty if it names none."""
        return gpu_indices(self.device)

    def gpu_of(self, worker_id: int) -> int | None:
        """Returns the GPU of a worker; None if `device` names none. All GPUs have the same number of workers."""
        return self.gpus[worker_id % len(self.gpus)] if self.gpus else None

    @model_validator(mode="before")
    @classmethod
    def _default_to_one_worker_per_gpu(cls, values: dict[str, Any]) -> dict[str, Any]:
        device = values.get("device")
        gpus = gpu_indices(device) if isinstance(device, str) and DEVICE.fullmatch(device) else ()
        return {"workers": len(gpus)} | values if gpus else values

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str, info: ValidationInfo) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError("it must be auto, cpu, cuda, or cuda: and indices of GPUs, such as cuda:0,1")
        gpus, workers = gpu_indices(value), info.data.get("workers", 0)
        if len(set(gpus)) < len(gpus):
            raise ValueError("it names a GPU twice; raise the workers instead")
        if gpus and workers % len(gpus):
            raise ValueError(f"{len(gpus)} GPUs need a multiple of {len(gpus)} workers, not {workers}")
        return value

    @field_validator("providers")
    @classmethod
    def _check_providers(cls, value: str) -> str:
        names = {name.lower() for name in split_list(value)}
        if len(names) > 1 and names & OPENVINO_NAMES:
            raise ValueError(
                "openvino runs whole graphs and cannot be combined with other providers; name only openvino, or leave "
                "it empty to use the faster of openvino and cpu"
            )
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_kubernetes(cls, value: Any) -> Any:
        """Replaces the value that Kubernetes sets for a service named `convoy` by the default."""
        return DEFAULT_PORT if isinstance(value, str) and KUBERNETES_PORT.match(value) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: str) -> str:
        for name in split_list(value):
            if name != "*":
                ipaddress.ip_network(name)
        return value

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        """Accepts an IPv6 address as it is written in a URL, such as [::1]."""
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_host_names(cls, value: str) -> str:
        if wrong := [name for name in split_list(value) if not HOST_NAME.fullmatch(name)]:
            raise ValueError(f"'{wrong[0]}' must be a name without a port, such as api.example.com or *.example.com")
        return value


def user_cache_folder() -> Path:
    """Returns Convoy's folder in the user's cache. Raises RuntimeError for a user without a home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convoy"


def gpu_indices(device: str) -> tuple[int, ...]:
    """Returns the indices that follow the colon of a device; empty if there are none."""
    return tuple(map(int, split_list(device.partition(":")[2])))


def split_list(text: str) -> list[str]:
    """Returns the items of a comma-separated setting."""
    return [item.strip() for item in text.split(",") if item.strip()]


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Returns the CONVOY_* variables that are not settings, each with the setting that it may be a misspelling of.

    Ignores variables of training, and variables that Kubernetes sets for services whose names begin with `convoy`.
    """
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    endings = [name.upper() for name in Settings.model_fields]  # the common prefix would make all names similar
    unknown = [
        name
        for name, value in environ.items()
        if name.upper().startswith(PREFIX)
        and name.upper() not in settings | TRAINING_VARIABLES
        and not _is_from_kubernetes(name.upper(), value)
    ]
    nearest = {name: get_close_matches(name.upper().removeprefix(PREFIX), endings, 1) for name in unknown}
    return {name: f"{PREFIX}{endings[0]}" if endings else None for name, endings in nearest.items()}


def _is_from_kubernetes(name: str, value: str) -> bool:
    return KUBERNETES_VARIABLE.fullmatch(name) is not None or (
        name.endswith("_PORT") and KUBERNETES_PORT.match(value) is not None
    )
