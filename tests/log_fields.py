"""The fields of log lines, with their names in OpenTelemetry and ECS: the table in docs/operations.md.

`logged_fields` reads the names from the source, so that a test finds a field that the table lacks.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SERVICE = Path(__file__).parents[1] / "service"


class LogField(NamedTuple):
    """What a field contains, and its names in OpenTelemetry's log data model or conventions, and in ECS.

    An empty name: neither has a field for it, so it keeps its own below a namespace, such as `convoy.batch_size`.
    """

    meaning: str
    opentelemetry: str = ""
    ecs: str = ""


FIELDS = {
    # Of every line
    "time": LogField("time, UTC", "Timestamp", "@timestamp"),
    "level": LogField("severity in small letters", "SeverityText", "log.level"),
    "event": LogField("what happened, always the same words", "Body", "message"),
    "traceback": LogField("of an error", "exception.stacktrace", "error.stack_trace"),
    "worker": LogField("number of the worker", "service.instance.id", "service.node.name"),
    "pid": LogField("number of the process", "process.pid", "process.pid"),
    # Of requests
    "request_id": LogField("as in `X-Request-Id`", "http.request.header.x-request-id", "http.request.id"),
    "trace_id": LogField("of the request's trace", "TraceId", "trace.id"),
    "method": LogField("of HTTP", "http.request.method", "http.request.method"),
    "path": LogField("of the URL; of an entry in a bucket or folder", "url.path", "url.path"),
    "status": LogField("of HTTP", "http.response.status_code", "http.response.status_code"),
    "error": LogField("code of the error", "error.type", "error.code"),
    "client": LogField("address of the client", "client.address", "client.address"),
    "key": LogField("name of the API key", "user.name", "user.name"),
    "ms": LogField("milliseconds until the answer", "", "event.duration (nanoseconds)"),
    "batch_size": LogField("images in the run that answered the request"),
    "decode_ms": LogField("milliseconds of decoding"),
    "queue_ms": LogField("milliseconds of waiting for a run"),
    "compute_ms": LogField("milliseconds of the run"),
    "background": LogField("whether the request has low priority"),
    "skipped": LogField("lines of this kind that were left out before this one"),
    "images": LogField("images that failed"),
    "bytes": LogField("that a client does not read, or that were fetched", "", "network.bytes"),
    # Of models
    "model": LogField("its name", "gen_ai.request.model"),
    "version": LogField("of the model"),
    "digest": LogField("identifies the content of a version"),
    "device": LogField("CPU or GPU that runs models"),
    "engine": LogField("what computes a version"),
    "engine_ms": LogField("measured milliseconds by engine"),
    "precision": LogField("of the graph"),
    "candidate": LogField("engine and precision that were tried"),
    "provider": LogField("execution provider of onnxruntime"),
    "nodes": LogField("of the graph, by provider or on the CPU"),
    "threads": LogField("per run"),
    "instances": LogField("runs at a time"),
    "max_batch_size": LogField("images per run"),
    "batch_ms": LogField("measured milliseconds by batch size"),
    "waited_s": LogField("seconds of waiting for another worker's choice"),
    "models": LogField("models that are ready"),
    "entries": LogField("number of entries that are no versions"),
    "seconds": LogField("duration of a download", "", "event.duration (nanoseconds)"),
    # Of causes and settings
    "reason": LogField("why", "exception.message", "error.message"),
    "reasons": LogField("why, by model, worker or task", "exception.message", "error.message"),
    "action": LogField("what to do"),
    "hint": LogField("what to do"),
    "code": LogField("exit code of a worker", "process.exit.code", "process.exit_code"),
    "early_deaths": LogField("of a worker in a row"),
    "gpu": LogField("index of the GPU of a worker"),
    "task": LogField("background task"),
    "failures": LogField("of a task in a row"),
    "restart_s": LogField("seconds until a task is started again"),
    "requests": LogField("number of requests that were lost"),
    "connections": LogField("open connections"),
    "closed": LogField("connections that were closed"),
    "limit": LogField("of connections or files"),
    "workers": LogField("number of workers"),
    "url": LogField("of the service or a bucket", "url.full", "url.full"),
    "api": LogField("address of the API", "url.full", "url.full"),
    "playground": LogField("address of the playground", "url.full", "url.full"),
    "documentation": LogField("address of the documentation", "url.full", "url.full"),
    "file": LogField("that was read", "file.path", "file.path"),
    "folder": LogField("that was read", "file.directory", "file.directory"),
    "keys": LogField("number of API keys"),
    "variable": LogField("name of an environment variable"),
    "nearest": LogField("setting with the nearest name"),
    "thread": LogField("name of a thread", "thread.name", "process.thread.name"),
    "object": LogField("in whose removal an error occurred"),
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
