"""The base class and the classes of all errors. Independent of HTTP: api/http/status_codes.py has the status codes.

Errors that never reach a client are in the module that raises them.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

# Clients choose the name, and comparing a long name with many models would delay all other requests.
MAX_COMPARED_CHARS = 64
MAX_COMPARED_NAMES = 50


class ConvoyError(Exception):
    """Base of all of Convoy's own errors.

    `code` is stable, for programs. `message` is one sentence, and `hint` says what to do next.
    """

    code = "internal"
    hint = "Try again. If the error persists, report it with the request id."

    def __init__(self, message: str, hint: str | None = None, *, library_text: str = "") -> None:
        """`library_text` is the message of a library. It is for the log and for operators, never for clients."""
        super().__init__(message)
        self.message = message
        self.library_text = library_text
        if hint is not None:
            self.hint = hint

    @property
    def full_message(self) -> str:
        """The message, followed by the message of a library."""
        return f"{self.message} {self.library_text}".rstrip()

    def without_frames(self) -> Self:
        """Returns this error without its traceback and causes, for one that is answered or kept as a result.

        Their frames hold the body of the request. They often hold the error as well: such a cycle, with all its memory,
        lasts until the garbage collector runs.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class BadImage(ConvoyError):
    """The bytes are not an image, or the image is damaged or truncated."""

    code = "bad_image"
    hint = "Send the complete bytes of a PNG, JPEG, WebP, BMP or GIF image."


class BadRequest(ConvoyError):
    """The body does not match its content type: malformed multipart or JSON, or a missing part."""

    code = "bad_request"
    hint = "Send the image as the raw body, or see /docs for the other forms."


class BadTensor(ConvoyError):
    """Name, datatype, shape or data of a tensor do not match the model."""

    code = "bad_tensor"
    hint = "GET /v2/models/{model} describes the inputs and outputs of the model."


class BadKeys(ConvoyError):
    """The API keys in the configuration are invalid."""

    code = "bad_keys"
    hint = "A key is `NAME SCOPES KEY`, where KEY is `sha256:` and its hash; `convoy key` creates one."


class Unauthenticated(ConvoyError):
    """The service requires an API key, and the request has none or an unknown one."""

    code = "unauthenticated"
    hint = "Send a key in the header `Authorization: Bearer KEY`; the operator of the service issues keys."

    def __init__(self, message: str, key_sent: bool) -> None:
        """`key_sent` is False for a request without any key."""
        super().__init__(message)
        self.key_sent = key_sent


class Forbidden(ConvoyError):
    """The API key lacks the scope that the request needs."""

    code = "forbidden"
    hint = "Use a key with that scope, or ask the operator to add the scope to yours."

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class UnknownModel(ConvoyError):
    """The service has no model of that name."""

    code = "unknown_model"
    hint = "GET /api/v1/models, or `convoy models`, lists the models."

    @classmethod
    def suggesting(cls, model: str, known_models: Iterable[str], root: object = None) -> "UnknownModel":
        """Returns the error for a name that is not among the models, with a suggestion. The message names `root`."""
        names = list(known_models)
        is_comparable = len(model) <= MAX_COMPARED_CHARS and len(names) <= MAX_COMPARED_NAMES
        nearest = get_close_matches(model, names, 1) if is_comparable else []
        suggestion = f" Did you mean '{nearest[0]}'?" if nearest else ""
        return cls(f"There is no model '{model}'{f' in {root}' if root else ''}.{suggestion}")


class UnknownVersion(ConvoyError):
    """The model exists, but not in that version."""

    code = "unknown_version"
    hint = (
        "GET /api/v1/models/{model} lists the loaded versions. By default only the newest one is loaded: "
        "CONVOY_LATEST_VERSIONS or the state file loads more."
    )


class UnknownDocument(ConvoyError):
    """The version has no card or plot of that name."""

    code = "unknown_document"
    hint = "GET /api/v1/models/{model} lists each version's documents."


class NotAllowed(ConvoyError):
    """The configuration forbids this operation, requests from web pages of this origin, or this name in the header
    `Host`."""

    code = "not_allowed"
    hint = "To let clients load and unload models, start the service with CONVOY_REPOSITORY_CHANGES=true."


class BodyTooLarge(ConvoyError):
    """The request body is larger than `max_body_bytes`."""

    code = "body_too_large"
    hint = "Send a smaller image, or fewer images per request."


class SlowRequest(ConvoyError):
    """The headers did not arrive within `header_timeout_s`, or the body fell `body_timeout_s` behind the rate
    `body_bytes_per_s`."""

    code = "slow_request"
    hint = "Send the whole request at once, or a smaller image over a slow connection."


class HeadersTooLarge(ConvoyError):
    """The headers are larger than `max_header_bytes`, or there are too many of them."""

    code = "headers_too_large"
    hint = "Send fewer or smaller headers."


class TooManyConnections(ConvoyError):
    """All connections of the worker are in use; only health checks are answered."""

    code = "too_many_connections"
    hint = "Keep connections open for several requests, and send this one again later."


class BadHttp(ConvoyError):
    """The bytes on the connection are not an HTTP request."""

    code = "bad_http"
    hint = "Send HTTP/1.1 without TLS; a proxy in front of the service terminates TLS."


class UnsupportedHttpVersion(ConvoyError):
    """The request line names an HTTP version with another major version than 1, such as HTTP/2.0."""

    code = "unsupported_http_version"
    hint = "Send HTTP/1.1; a proxy in front of the service can speak HTTP/2 with clients."


class ImageTooLarge(ConvoyError):
    """The image is larger than `max_pixels` or `max_header_pixels` allow. It was not decoded."""

    code = "image_too_large"
    hint = "Scale the image down before sending it."


class TooManyPixels(ImageTooLarge):
    """The images of one request together have more than twice `max_pixels`; slow formats count more. This image was not
    decoded."""

    code = "too_many_pixels"
    hint = "Send fewer or smaller images per request."


class TooManyImages(ConvoyError):
    """One request has more images than the queue can hold."""

    code = "too_many_images"
    hint = "Send fewer images per request."


class ResponseTooLarge(ConvoyError):
    """The response would be larger than `max_response_bytes`. In most cases nothing was computed."""

    code = "response_too_large"
    hint = "Send fewer images per request, or request fewer classes with `top_k` or `classification`."


class UnsupportedImage(ConvoyError):
    """Convoy recognizes the image format, but does not support it."""

    code = "unsupported_image"
    hint = "Convert the image to PNG, JPEG, WebP, BMP or GIF."


class UnsupportedBody(ConvoyError):
    """The route does not accept this content type."""

    code = "unsupported_media_type"
    hint = "Send multipart/form-data, or application/json."


class BadParameter(ConvoyError):
    """A query parameter or field has an invalid value."""

    code = "bad_parameter"
    hint = "See /docs for the parameters and their ranges."


class Overloaded(ConvoyError):
    """Base class of rejections because of the load; each reason has its own class. Waiting for `retry_after_s`
    helps."""

    code = "overloaded"
    hint = "Wait for the seconds in the Retry-After header, then send the request again."

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Overloaded):
    """The model's queue or the memory for its images is full, or too many explanations run. Retry-After estimates for
    how long."""

    code = "queue_full"


class TooLateToStart(Overloaded):
    """Because of the requests ahead, the request would be answered after its deadline. Nothing was computed."""

    code = "too_late_to_start"


class MemoryFull(Overloaded):
    """Requests of other clients, or other requests of this client, use up the memory for bodies and responses. This
    request was not run."""

    code = "memory_full"


class NotReady(ConvoyError):
    """The model is still loading and warming up."""

    code = "not_ready"
    hint = "Wait until GET /health/ready answers 200."


class BrokenModel(ConvoyError):
    """None of the model's versions could be loaded. Waiting does not help."""

    code = "broken_model"
    hint = "POST /v2/repository/index, and the log of the service, contain the reason."


class Draining(ConvoyError):
    """The service is shutting down and accepts no new requests."""

    code = "draining"
    hint = "Send the request again; another instance will answer it."


class DeadlineExceeded(ConvoyError):
    """The request was not answered within its time limit."""

    code = "deadline_exceeded"
    hint = "Raise the time limit, or send fewer requests at once."


class ExpiredInQueue(DeadlineExceeded):
    """The time limit ended, or became too short for a run, while the request waited. The request was not run."""

    code = "expired_in_queue"


class DeadlineTooShort(DeadlineExceeded):
    """Even an idle model would take longer than the time limit allows. Nothing was computed."""

    code = "deadline_too_short"
    hint = "Raise the time limit, or send fewer images per request."


REJECTIONS = (Overloaded, ExpiredInQueue, DeadlineTooShort)
"""Errors of requests that were not run because of the load or their deadline. The metric of rejections counts them by
code."""


class ModelFailed(ConvoyError):
    """The model failed on this image, or its output is not finite. Other images of the same run are not affected."""

    code = "model_failed"
    hint = "The log of the service contains the cause under this request id."


class ModelHung(ConvoyError):
    """A run of a model has taken longer than `max_run_timeouts` request timeouts. The liveness check fails."""

    code = "model_hung"
    hint = "Restart the process; an orchestrator that polls /health/live does so."


class OutOfMemory(ModelFailed):
    """A batch needed more memory than was free, on the GPU or within the model's limit. The next batch runs as
    usual."""

    code = "out_of_memory"
    hint = "Try again, send fewer images per request, or raise CONVOY_GPU_MEMORY_LIMIT_BYTES."


FAILURES = (ModelFailed, ModelHung, DeadlineExceeded)
"""Errors that count as failures of a version. All others are errors of the client, or rejections."""


class BrokenVersion(ConvoyError):
    """A version folder cannot be served: its manifest, checksum, graph or warm-up failed."""

    code = "broken_version"
    hint = "Export the version again, or remove its folder."


class BadState(ConvoyError):
    """The state file cannot be read or written, or is invalid."""

    code = "bad_state"
    hint = "Fix or remove the file that CONVOY_STATE names; loaded models keep serving."


class NotEverywhere(ConvoyError):
    """Some workers did not carry out a load or unload in time."""

    code = "not_everywhere"
    hint = "The message names the workers; their log lines contain the cause. The desired state remains recorded."


class VersionUnavailable(ConvoyError):
    """The version is in the bucket, but cannot be fetched now: it is unreachable, access is denied, or the disk is
    full."""

    code = "version_unavailable"
    hint = "Run the same command again when the version can be fetched, or name another --version."
