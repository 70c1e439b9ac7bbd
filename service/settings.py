"""Every setting of the service, with its default. Each is a flag of `convoy serve` and the variable CONVOY_<NAME>."""

import ipaddress
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Device = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["auto", "float32", "float16", "int8"]

PREFIX = "CONVOY_"


class Settings(BaseSettings):
    """Frozen once built: a running service never changes its mind."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True, extra="forbid", allow_inf_nan=False
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""

    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one and logs it."""

    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path under which an ingress offers the service, such as /convoy, whether or not it cuts it off."""

    trusted_proxies: str = ""
    """Addresses or networks, comma-separated, whose X-Forwarded-For and -Proto are believed; * for all."""

    models: str = "models"
    """Folder of models, models/<name>/<version>/..., or a bucket of them: s3://, gs:// or file:// and a path."""

    bucket_cache: Path | None = None
    """Folder that a bucket's models are fetched into. None: one in the user's cache folder."""

    bucket_interval_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds between looks at the bucket for versions that came, changed or went."""

    state: Path | None = None
    """JSON file of what is wanted of the models: versions, labels, unloaded ones. None: forgotten at a restart."""

    scan_interval_s: float = Field(default=1.0, gt=0)
    """Seconds between looks at the folder of models for versions that came, changed or went."""

    workers: int = Field(default=1, ge=1, le=256)
    """Processes that serve; each loads the models and has its share of the cores. A dead one is replaced."""

    latest_versions: int = Field(default=1, ge=1)
    """How many of the newest versions of each model are loaded; the highest one is the default."""

    repository_changes: bool = False
    """Whether clients may load and unload models (POST /v2/repository/models/{model}/load and /unload)."""

    repository_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds within which every worker must have carried out a load or unload, else 504."""

    max_batch_size: int = Field(default=0, ge=0, le=1024)
    """Images in one run; more are split and rejoined. 0: 32; 64 if 32 take less than 1 ms, 128 while many wait."""

    max_queue_images: int = Field(default=1024, ge=1)
    """Images that may wait for one model; past it requests are refused with 429."""

    latency_budget_ms: float = Field(default=0.0, ge=0)
    """Milliseconds that one run may take: the largest batch that keeps it when measured is used. 0: no budget."""

    max_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """Milliseconds that an idle model waits for a batch to fill. 0: it starts at once."""

    device: Device = "auto"
    """Where models run: cpu, cuda, or auto, which is CUDA where onnxruntime has it and there is a GPU."""

    providers: str = ""
    """onnxruntime's execution providers in order of preference, such as `tensorrt,cuda`, in place of `device`."""

    precision: PrecisionChoice = "auto"
    """Which graph of a model is loaded: float32, float16, int8, or auto, the fastest for where it runs."""

    gpu_memory_limit_bytes: int = Field(default=0, ge=0)
    """Bytes of GPU memory that one model's arena may take. 0: no limit."""

    threads: int = Field(default=0, ge=0)
    """Cores that one run of a model uses. 0: what the container or affinity mask grants, divided by the workers."""

    decode_threads: int = Field(default=0, ge=0)
    """Threads that decode images. 0: one a usable core."""

    request_timeout_ms: int = Field(default=30_000, ge=1)
    """Milliseconds within which a request is answered, else 504."""

    drain_timeout_s: float = Field(default=25.0, ge=0)
    """Seconds that a stopping service gives to what it has accepted, before it gives up."""

    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Bytes of a request body at most, else 413."""

    max_pixels: int = Field(default=25_000_000, ge=1)
    """Width x height of an image, half of all of a request's; WebP, CMYK and progressive count twice. Else 413."""

    max_decoded_bytes: int = Field(default=0, ge=0)
    """Memory of the images that a worker decodes at once, 8 bytes a pixel; others wait. 0: a quarter of the limit."""

    max_header_bytes: int = Field(default=32 * 1024, ge=1024)
    """Bytes of a request's first line and headers at most, else 431."""

    header_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds within which a new connection must bring its first request's headers, else 408; so each later request."""

    body_timeout_s: float = Field(default=20.0, gt=0)
    """Seconds for a body to come, and one more for every `body_bytes_per_s`, else 408; so must answers be taken."""

    body_bytes_per_s: int = Field(default=4096, ge=1)
    """Bytes a second that a slow body must bring to be waited for, and a slow reader must take."""

    keep_alive_s: int = Field(default=75, ge=1)
    """Seconds that a connection may be idle between two requests."""

    keep_alive_requests: int = Field(default=0, ge=0)
    """Requests that one connection may bring; then its client must connect anew, to any worker. 0: no limit."""

    keys: str = ""
    """API keys, each `NAME SCOPES KEY`, separated by semicolons; see `convoy key --help`. Empty: none is needed."""

    keys_file: Path | None = None
    """File of API keys, one a line, read again when it changes. None: only those of `keys`."""

    cors_origins: str = ""
    """Origins, comma-separated, whose pages may call the service from a browser; * for all. Empty: none."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written; requests are logged at info."""

    log_requests_per_s: int = Field(default=100, ge=0)
    """Requests that a worker logs a second; past it only errors other than 429, and a count of the rest. 0: all."""

    otlp_endpoint: str = ""
    """OpenTelemetry collector for traces (OTLP over HTTP), such as http://collector:4318. Empty: as OTEL_* say."""

    metrics_labels: int = Field(default=1000, ge=0)
    """Classes of a model that convoy_predictions_total counts by name; those of higher index are `other`."""

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: str) -> str:
        for name in split_list(value):
            if name != "*":
                ipaddress.ip_network(name)
        return value


def split_list(text: str) -> list[str]:
    """The items of a comma-separated setting."""
    return [item.strip() for item in text.split(",") if item.strip()]


def misspelled_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that are no setting but nearly spelt like one, each with the one that was probably meant.

    Only near ones: an orchestrator may well set CONVOY_SERVICE_HOST, and training reads CONVOY_DATA.
    """
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    unknown = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in settings]
    suggestions = {name: get_close_matches(name.upper(), settings, 1, 0.8) for name in unknown}
    return {name: matches[0] for name, matches in suggestions.items() if matches}
