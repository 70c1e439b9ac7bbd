"""The fields of log lines, with their names in OpenTelemetry and ECS: the table in docs/operations.md.

`logged_fields` reads the names from the source, so that a test finds a field that the table lacks.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SERVICE = Path(__file__).parents[1] / "service"


class LogField(NamedTuple):
    """The meaning of a field, and its names in OpenTelemetry's log data model or conventions, and in ECS.

    An empty name means that the convention has no such field. The field then keeps its own name in a namespace, such as
    `convoy.batch_size`.
    """

    meaning: str
    opentelemetry: str = ""
    ecs: str = ""


FIELDS = {
    # Of every line
    "time": LogField("time, UTC", "Timestamp", "@timestamp"),
    "level": LogField("severity in lower case", "SeverityText", "log.level"),
    "event": LogField("what happened, always the same words", "Body", "message"),
    "traceback": LogField("traceback of the error", "exception.stacktrace", "error.stack_trace"),
    "worker": LogField("number of the worker", "service.instance.id", "service.node.name"),
    "pid": LogField("process id", "process.pid", "process.pid"),
    # Of requests
    "request_id": LogField("request id, as in `X-Request-Id`", "http.request.header.x-request-id", "http.request.id"),
    "trace_id": LogField("trace id of the request", "TraceId", "trace.id"),
    "method": LogField("HTTP method", "http.request.method", "http.request.method"),
    "path": LogField("path of the URL, or of an entry in a bucket or folder", "url.path", "url.path"),
    "status": LogField("HTTP status code", "http.response.status_code", "http.response.status_code"),
    "error": LogField("code of the error", "error.type", "error.code"),
    "client": LogField("address of the client", "client.address", "client.address"),
    "key": LogField("name of the API key", "user.name", "user.name"),
    "ms": LogField("milliseconds until the response", "", "event.duration (nanoseconds)"),
    "batch_size": LogField("images in the run that answered the request"),
    "decode_ms": LogField("milliseconds of decoding"),
    "queue_ms": LogField("milliseconds of waiting for a run"),
    "compute_ms": LogField("milliseconds of the run"),
    "background": LogField("whether the request has low priority"),
    "skipped": LogField("number of lines of this kind that were left out before this line"),
    "images": LogField("number of images that failed"),
    "bytes": LogField("unread bytes of a closed connection, or size of a download", "", "network.bytes"),
    # Of models
    "model": LogField("name of the model", "gen_ai.request.model"),
    "version": LogField("version of the model"),
    "digest": LogField("identifies the content of a version"),
    "device": LogField("CPU or GPU that runs models"),
    "engine": LogField("engine that runs a version"),
    "engine_ms": LogField("measured milliseconds for each engine"),
    "precision": LogField("precision of the graph"),
    "candidate": LogField("engine and precision that were tried"),
    "provider": LogField("execution provider of onnxruntime"),
    "nodes": LogField("number of graph nodes for each provider, or on the CPU"),
    "threads": LogField("threads per run"),
    "instances": LogField("maximum number of simultaneous runs"),
    "max_batch_size": LogField("maximum images per run"),
    "batch_ms": LogField("measured milliseconds for each batch size"),
    "waited_s": LogField("seconds of waiting for another worker's choice"),
    "models": LogField("models that are ready"),
    "entries": LogField("number of entries that are not versions"),
    "seconds": LogField("duration of a download", "", "event.duration (nanoseconds)"),
    # Of causes and settings
    "reason": LogField("reason of the event", "exception.message", "error.message"),
    "reasons": LogField("reason for each model, worker or task", "exception.message", "error.message"),
    "action": LogField("what to do"),
    "hint": LogField("what to do"),
    "code": LogField("exit code of a worker", "process.exit.code", "process.exit_code"),
    "early_deaths": LogField("consecutive early deaths of the worker"),
    "gpu": LogField("index of the GPU of a worker"),
    "task": LogField("name of the background task"),
    "failures": LogField("consecutive failures of the task"),
    "restart_s": LogField("seconds until the task is restarted"),
    "requests": LogField("number of requests that were lost"),
    "connections": LogField("number of open connections"),
    "closed": LogField("number of connections that were closed"),
    "limit": LogField("maximum number of connections or open files"),
    "workers": LogField("number of workers"),
    "url": LogField("URL of the service or of a bucket", "url.full", "url.full"),
    "api": LogField("address of the API", "url.full", "url.full"),
    "playground": LogField("address of the playground", "url.full", "url.full"),
    "documentation": LogField("address of the documentation", "url.full", "url.full"),
    "file": LogField("file that was read", "file.path", "file.path"),
    "folder": LogField("folder that was read", "file.directory", "file.directory"),
    "keys": LogField("number of API keys"),
    "variable": LogField("name of an environment variable"),
    "nearest": LogField("setting with the nearest name"),
    "thread": LogField("name of a thread", "thread.name", "process.thread.name"),
    "object": LogField("object whose destruction raised an error"),
}
FORWARDING = {"event", "log_version", "configure", "force_exit", "log"}
"""Functions whose keyword arguments become fields."""
NO_FIELDS = {"exc_info", "extra", "handlers", "force"}
HOLDERS = {"fields", "death", "last_death", "line"}
"""Variables and attributes that hold fields."""
RETURNING = {"log_fields", "_gpu_field"}


def logged_fields() -> set[str]:
    """Returns the names of the fields in the source of the service."""
    names = set()
    for file in SERVICE.rglob("*.py"):
        names |= {name for node in ast.walk(ast.parse(file.read_text())) for name in _fields_of(node)}
    return names - NO_FIELDS


def _fields_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and _name(node.func) in FORWARDING:
        yield from (keyword.arg for keyword in node.keywords if keyword.arg)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(_name(target) in HOLDERS for target in targets):
            yield from _keys(node.value)
        for target in targets:
            is_item = isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant)
            if is_item and (_name(target.value) in HOLDERS or "LOG_FIELDS" in ast.unparse(target.value)):
                yield str(target.slice.value)
    elif isinstance(node, ast.FunctionDef) and node.name in RETURNING:
        yield from _keys(node)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "fields":
                yield from _keys(value)


def _keys(node: ast.AST) -> Iterator[str]:
    """The constant texts that are keys of dictionaries in the node."""
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from (key.value for key in part.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _name(node: ast.AST) -> str:
    """The last part of a name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def log_fields_table() -> str:
    rows = ["| field | content | OpenTelemetry | ECS |", "|---|---|---|---|"]
    for name, field in FIELDS.items():
        own = f"`convoy.{name}`"
        names = [f"`{other}`" if other else own for other in (field.opentelemetry, field.ecs)]
        rows.append(f"| `{name}` | {field.meaning} | {' | '.join(names)} |")
    return "\n".join(rows)
