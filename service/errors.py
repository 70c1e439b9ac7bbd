"""The one family of errors. It knows nothing of HTTP: api/http/status_codes.py holds the status codes.

Errors of one module only, which never reach a client, stand in that module.
"""

RESUME_HINT = "Give the same command again, without --overwrite: it goes on where it stopped."


class ConvoyError(Exception):
    """Base of all of Convoy's own errors.

    `code` is stable and meant for programs; `message` is one sentence for people; `hint` says what to do next.
    """

    code = "internal"
    hint = "Try again; if it happens again, report it with the request id."

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint


class BadImage(ConvoyError):
    """The bytes are no image, or a damaged or truncated one."""

    code = "bad_image"
    hint = "Send the complete bytes of a PNG, JPEG, WebP, BMP or GIF image."


class BadRequest(ConvoyError):
    """The body is not what its content type promises: malformed multipart or JSON, a missing part."""

    code = "bad_request"
    hint = "Send the image as the raw body, or see /docs for the other forms."


class BadTensor(ConvoyError):
    """A tensor, its name, datatype, shape or data do not fit the model."""

    code = "bad_tensor"
    hint = "GET /v2/models/{model} tells what the model takes and gives."


class BadKeys(ConvoyError):
    """The API keys that the service was given cannot be read."""

    code = "bad_keys"
    hint = "A key is `NAME SCOPES KEY`, KEY being `sha256:` and its hash; `convoy key` makes one."


class Unauthenticated(ConvoyError):
    """The service needs an API key, and the request has none, or one that it does not know."""

    code = "unauthenticated"
    hint = "Send a key in the header `Authorization: Bearer KEY`; whoever runs the service can give you one."

    def __init__(self, message: str, key_sent: bool) -> None:
        """`key_sent` is False for a request without any key."""
        super().__init__(message)
        self.key_sent = key_sent


class Forbidden(ConvoyError):
    """The API key is known, but not for what the request wants; `scope` is what it lacks."""

    code = "forbidden"
    hint = "Use a key with that scope, or have it added to yours."

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class UnknownModel(ConvoyError):
    """No model of that name is served."""

    code = "unknown_model"
    hint = "GET /api/v1/models, or `convoy models`, lists the models."


class UnknownVersion(ConvoyError):
    """The model is served, but not in that version."""

    code = "unknown_version"
    hint = "GET /api/v1/models/{model}, or `convoy models`, lists its versions."


class UnknownDocument(ConvoyError):
    """The version has no card or plot of that name."""

    code = "unknown_document"
    hint = "GET /api/v1/models/{model} lists each version's documents."


class NotAllowed(ConvoyError):
    """The service is set up not to do this for clients, or not for web pages of other origins."""

    code = "not_allowed"
    hint = "Start the service with CONVOY_REPOSITORY_CHANGES=true to let clients load and unload models."


class BodyTooLarge(ConvoyError):
    """The request body is larger than `max_body_bytes`."""

    code = "body_too_large"
    hint = "Send a smaller image, or fewer images a request."


class SlowRequest(ConvoyError):
    """The request did not arrive in its time: `header_timeout_s`, or `body_timeout_s` and its size."""

    code = "slow_request"
    hint = "Send the whole request at once, or a smaller image over a slow connection."


class HeadersTooLarge(ConvoyError):
    """The request's headers are larger than `max_header_bytes`, or too many."""

    code = "headers_too_large"
    hint = "Send fewer or smaller headers."


class BadHttp(ConvoyError):
    """What came over the connection is no HTTP request."""

    code = "bad_http"
    hint = "Send HTTP/1.1, without TLS: an ingress or a proxy in front of the service ends it."


class ImageTooLarge(ConvoyError):
    """The image's header announces more pixels than `max_pixels`; nothing was decoded."""

    code = "image_too_large"
    hint = "Scale the image down before sending it."


class TooManyPixels(ImageTooLarge):
    """The images of one request have more than twice `max_pixels` together; this one was not decoded."""

    code = "too_many_pixels"
    hint = "Send fewer images a request, or smaller ones."


class TooManyImages(ConvoyError):
    """One request holds more images than may ever wait at once."""

    code = "too_many_images"
    hint = "Send fewer images a request."


class UnsupportedImage(ConvoyError):
    """An image format that Convoy recognises and does not read."""

    code = "unsupported_image"
    hint = "Convert the image to PNG, JPEG, WebP, BMP or GIF."


class UnsupportedBody(ConvoyError):
    """A content type that the route does not take."""

    code = "unsupported_media_type"
    hint = "Send multipart/form-data, or application/json."


class BadParameter(ConvoyError):
    """A query parameter or field has a value that cannot be used."""

    code = "bad_parameter"
    hint = "See /docs for the parameters and their ranges."


class Overloaded(ConvoyError):
    """The model's queue is full. `retry_after_s` is the time that the queue needs to drain, as measured."""

    code = "overloaded"
    hint = "Wait for the seconds in the Retry-After header, then send the request again."

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ConvoyError):
    """The model is still loading and warming up."""

    code = "not_ready"
    hint = "Wait until GET /health/ready answers 200."


class Draining(ConvoyError):
    """The service is shutting down and takes nothing new."""

    code = "draining"
    hint = "Send the request again: another instance will answer it."


class DeadlineExceeded(ConvoyError):
    """The answer was not there within the request's time limit."""

    code = "deadline_exceeded"
    hint = "Raise the time limit, or send fewer requests at once."


class ModelFailed(ConvoyError):
    """The model raised while it ran; every member of its batch gets this error, and no other request."""

    code = "model_failed"
    hint = "The service's log has the cause under this request id."


class OutOfMemory(ModelFailed):
    """A batch needed more memory than its GPU, or the model's limit, had left; the next one is tried as usual."""

    code = "out_of_memory"
    hint = "Try again, send fewer images at once, or give the model more (CONVOY_GPU_MEMORY_LIMIT_BYTES)."


class BrokenVersion(ConvoyError):
    """A version folder that cannot be served: manifest, checksum, graph or warm-up is wrong."""

    code = "broken_version"
    hint = "Export the version again, or remove its folder."


class BadState(ConvoyError):
    """The file of what is wanted cannot be read, is not valid, or cannot be written."""

    code = "bad_state"
    hint = "Mend or remove the file that CONVOY_STATE names; the models stay as they are."


class NotEverywhere(ConvoyError):
    """A change of the repository was not carried out by every worker in time, or some could not."""

    code = "not_everywhere"
    hint = "The message names the workers; their log lines have the cause. What is wanted stays recorded."


# Errors of batch jobs. They have no status code: a batch job does not answer HTTP requests.


class CannotStartJob(ConvoyError):
    """The job cannot start: its input, its output or its shard is invalid."""

    code = "cannot_start"
    hint = "See `convoy batch --help`."


class OutputConflict(ConvoyError):
    """The output belongs to another job, or another process is writing it."""

    code = "output_taken"
    hint = "Name another --output, or say --overwrite to begin anew."


class JobInterrupted(ConvoyError):
    """The job had to stop; its journal is kept, so that it can be resumed."""

    code = "interrupted"
    hint = RESUME_HINT
