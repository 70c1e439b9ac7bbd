"""Triggers every alert, each in its own service: small models, real processes, and a stub of Kubernetes."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np

from service.api.auth.api_keys import generate_key
from tests.bench.processes import free_ports
from tests.monitoring.stage import Scenario, Stage
from tests.support.images import encode
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph, nan_graph, slow_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
WHITE, BLACK = (encode(np.full(SHAPE, value, np.uint8)) for value in (255, 0))
STOPPED_S = 45.0
SETTLE_S = 20.0
FAULTY_TASK = """
import service.malloc

def fail():
    raise MemoryError("injected by the alert check")

service.malloc.trim, service.malloc.TRIM_INTERVAL_S = fail, 1.0
"""


def _models(stage: Stage, name: str = "models") -> Path:
    folder = stage.folder / name
    write_version(folder)
    return folder


def _kill(stage: Stage) -> None:
    service = stage.service(_models(stage))
    service.process.kill()
    stage.mark_caused()


def _remove(stage: Stage) -> None:
    stage.service(_models(stage))
    stage.forget_targets()
    stage.mark_caused()


def _restart(stage: Stage) -> None:
    (port,) = free_ports()
    models = _models(stage)
    stage.mark_caused()
    for _ in range(5):
        service = stage.service(models, port=port)
        service.process.kill()
        service.exit_code()


def _empty(stage: Stage) -> None:
    (stage.folder / "models").mkdir()
    stage.mark_caused()
    stage.service(stage.folder / "models")


def _stop_and_kill_workers(stage: Stage) -> None:
    service = stage.service(_models(stage), workers=2)
    service.wait_ready()
    stage.mark_caused()
    stopped = _worker_pid(service)
    os.kill(stopped, signal.SIGSTOP)
    stage.sleep(STOPPED_S)
    for _ in range(4):
        os.kill(_worker_pid(service), signal.SIGKILL)
        stage.sleep(SETTLE_S)


def _worker_pid(service: RunningService) -> int:
    """Returns the process number of the worker that was started last."""
    return int([line["pid"] for line in list(service.lines) if line["event"] == "worker is started"][-1])


def _hang(stage: Stage) -> None:
    models = stage.folder / "models"
    write_version(models, "hangs", graph=endless_graph(SHAPE, 4))
    service = stage.service(models, request_timeout_ms=2000, max_run_timeouts=0)
    service.wait_ready()
    stage.mark_caused()
    service.client.post("/api/v1/models/hangs/classify", content=WHITE)


def _slow(stage: Stage) -> None:
    models = stage.folder / "models"
    write_version(models, "slow", graph=slow_graph(SHAPE, 4, rounds=1200))
    service = stage.service(models, max_batch_size=1)
    service.wait_ready()
    stage.mark_caused()
    for _ in range(16):
        stage.send_regularly(service, "slow", BLACK, pause_s=0.0)


def _overload(stage: Stage) -> None:
    models = stage.folder / "models"
    write_version(models, "slow", graph=slow_graph(SHAPE, 4, rounds=100))
    service = stage.service(models, max_batch_size=1, max_queue_images=2)
    service.wait_ready()
    stage.mark_caused()
    for _ in range(6):
        stage.send_regularly(service, "slow", BLACK, pause_s=0.2)


def _fail(stage: Stage) -> None:
    models = stage.folder / "models"
    write_version(models, "broken", graph=nan_graph(SHAPE, 4))
    service = stage.service(models)
    service.wait_ready()
    stage.mark_caused()
    stage.send_regularly(service, "broken", WHITE, pause_s=2.0)
    stage.send_regularly(service, "broken", BLACK, pause_s=0.5)


def _fail_in_background(stage: Stage) -> None:
    modules = stage.folder / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(FAULTY_TASK)
    stage.mark_caused()
    stage.service(_models(stage), python_path=modules)


def _damage_keys(stage: Stage) -> None:
    keys = stage.folder / "keys"
    secret, line = generate_key("prometheus", "metrics")
    keys.write_text(line + "\n")
    (stage.folder / "secret").write_text(secret)
    stage.service(_models(stage), keys_file=keys)
    stage.mark_caused()
    keys.write_text("this is no key\n")


def _damage_version(stage: Stage) -> None:
    models = _models(stage)
    service = stage.service(models)
    service.wait_ready()
    stage.mark_caused()
    (write_version(models, version=2) / "model.onnx").write_bytes(b"damaged")


def _lag(stage: Stage) -> None:
    stage.service(_models(stage, "one"))
    stage.service(_models(stage, "other"))
    stage.mark_caused()
    write_version(stage.folder / "one", version=2)


def _lose_bucket(stage: Stage) -> None:
    service = _with_bucket(stage)
    service.wait_ready()
    stage.mark_caused()
    shutil.rmtree(stage.folder / "bucket")


def _damage_version_in_bucket(stage: Stage) -> None:
    service = _with_bucket(stage)
    service.wait_ready()
    stage.mark_caused()
    folder = write_version(stage.folder / "elsewhere", version=2)
    (folder / "model.onnx").write_bytes(b"damaged")
    shutil.copytree(folder, stage.folder / "bucket/linear/2")


def _with_bucket(stage: Stage) -> RunningService:
    bucket = _models(stage, "bucket")
    return stage.service(f"file://{bucket}", bucket_cache=stage.folder / "cache", bucket_interval_s=2)


KUBERNETES = Scenario(
    "kubernetes",
    {
        "ConvoyMemoryNearLimit": "a stub of cAdvisor reports 95% of the limit",
        "ConvoyJobFailed": "a stub of kube-state-metrics reports a failed Job",
        "ConvoyNightlyMissed": "a stub of kube-state-metrics reports a last success 50 h ago",
    },
    lambda stage: stage.mark_caused(),
)
KEYS = Scenario("keys", {"ConvoyKeysInvalid": "the file of keys is overwritten with invalid content"}, _damage_keys)
# The stub is scraped from the start. The longest of the other scenarios come first.
SCENARIOS = (
    KUBERNETES,
    Scenario("lagging", {"ConvoyVersionLags": "one of two instances gets a new version"}, _lag),
    Scenario("bucket", {"ConvoyBucketNotSynced": "the bucket (`file://`) is removed"}, _lose_bucket),
    Scenario(
        "refused", {"ConvoyBucketVersionMissing": "a damaged version is put into the bucket"}, _damage_version_in_bucket
    ),
    Scenario("empty", {"ConvoyNotReady": "the folder of models is empty"}, _empty),
    Scenario(
        "failing",
        {
            "ConvoyFailing": "a fifth of the images makes the model return NaN",
            "ConvoyFailingSlowly": "the same traffic, for longer",
        },
        _fail,
    ),
    Scenario(
        "slow",
        {
            "ConvoySlow": "a model takes over a second for an image",
            "ConvoyQueueFilling": "sixteen clients send requests to the same model without a pause",
        },
        _slow,
    ),
    Scenario("killed", {"ConvoyDown": "the process is killed"}, _kill),
    Scenario("removed", {"ConvoyGone": "the target is removed from Prometheus, as by a deleted pod"}, _remove),
    Scenario("restarted", {"ConvoyRestarting": "the process is killed and started again, five times"}, _restart),
    Scenario(
        "workers",
        {
            "ConvoyWorkerUnresponsive": "SIGSTOP for one of two workers",
            "ConvoyWorkerRestarting": "the stopped worker is replaced, and four others are killed",
        },
        _stop_and_kill_workers,
    ),
    Scenario(
        "background",
        {"ConvoyBackgroundTaskFailing": "the task that releases memory always raises an error"},
        _fail_in_background,
    ),
    KEYS,
    Scenario("damaged", {"ConvoyVersionBroken": "a version with a damaged graph is added"}, _damage_version),
    Scenario("overloaded", {"ConvoyOverloaded": "six clients share a queue of two images"}, _overload),
    Scenario("hanging", {"ConvoyModelHangs": "a graph with an endless loop gets a request"}, _hang),
)
