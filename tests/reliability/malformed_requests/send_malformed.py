"""Sends malformed input to a real service, and measures responses, memory and processor time."""

import argparse
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from service.model_store.manifest import Preprocessing
from tests.bench.errors import CannotMeasure
from tests.bench.report.markdown import table
from tests.reliability.malformed_requests import generate_cases, valid_inputs
from tests.reliability.malformed_requests.raw_http_client import RawHttpClient
from tests.reliability.malformed_requests.request_cases import Case
from tests.reliability.malformed_requests.response_rules import violated_rule
from tests.reliability.process_resources import ResourceMeter
from tests.reliability.report import add_report, write
from tests.support.images import encode, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

CLASSES = 4
SEED = 17
ANSWER_TIMEOUT_S = 120.0
SILENT_TIMEOUT_S = 0.1
SERVICE_TIMEOUTS = {
    "header_timeout_s": 3,
    "body_timeout_s": 3,
}  # shorter than by default, because the service waits for incomplete requests
PROBE_EVERY = 500
SHOWN_BYTES = 200


@dataclass
class KindResults:
    """The results of all cases of one kind. `outcomes` counts responses by status, and missing responses as `none`."""

    outcomes: Counter[str] = field(default_factory=Counter)
    extra_bytes: float = 0.0
    cpu_s: float = 0.0


@dataclass
class MalformedResults:
    """All results by kind, the violations, and the resident bytes before the first and after the last case."""

    kinds: dict[str, KindResults] = field(default_factory=lambda: defaultdict(KindResults))
    violations: list[str] = field(default_factory=list)
    resident_bytes: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(kind.outcomes.total() for kind in self.kinds.values())


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("bad-input", help="send malformed images and bodies to a real service")
    command.set_defaults(run=run)
    command.add_argument(
        "--count",
        type=int,
        default=20_000,
        help="number of random cases, in addition to the crafted cases (default: 20000)",
    )
    command.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    add_report(command)


def run(args: argparse.Namespace) -> int:
    if not Path("/proc/self/clear_refs").exists():
        raise CannotMeasure(
            "Measuring peak memory needs /proc/PID/clear_refs, which does not exist on this machine: use Linux."
        )
    data = os.environ.get("CONVOY_DATA")
    valid = generate_cases.valid_images(Path(data) if data else None)
    with run_service() as service:
        results = send(service, generate_cases.random_cases(args.count, args.seed, valid))
        results = send(service, generate_cases.crafted_cases(), results)
    write(args.report, "bad-input", _content(results, real=data is not None))
    return int(bool(results.violations))


@contextmanager
def run_service() -> Iterator[RunningService]:
    """Runs a service with the two models of tests/reliability/malformed_requests/request_cases.py."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_version(root, "small", shape=valid_inputs.SHAPE, classes=CLASSES)
        cropped = Preprocessing(resize="shorter", shorter=36, interpolation="lanczos")
        write_version(root, "large", shape=(32, 32, 3), classes=CLASSES, preprocessing=cropped)
        with RunningService(root, **SERVICE_TIMEOUTS) as service:
            check_answers(service)
            yield service


def send(service: RunningService, cases: Iterable[Case], results: MalformedResults | None = None) -> MalformedResults:
    """Sends the cases one at a time. From time to time, and at the end, a valid request must be answered."""
    results = results or MalformedResults()
    meter, address = ResourceMeter(service.process.pid), urlsplit(service.url)
    client = RawHttpClient(str(address.hostname), int(address.port or 0))
    started_s, before_bytes = time.monotonic(), results.resident_bytes[0] or meter.resident_bytes()
    for number, case in enumerate(cases):
        _send_one(client, meter, case, results)
        if service.process.poll() is not None:
            raise CannotMeasure(f"The service exited at case {number}, {case.kind}: {case.request_bytes[:300]!r}")
        if number % PROBE_EVERY == 0:
            check_answers(service)
    client.close()
    check_answers(service)
    results.resident_bytes = before_bytes, meter.resident_bytes()
    results.seconds += time.monotonic() - started_s
    return results


def check_answers(service: RunningService) -> None:
    """Checks the predictions for an image and a tensor against NumPy. Raises CannotMeasure."""
    pixels = random_pixels(*valid_inputs.SHAPE, seed=3)
    inputs = [valid_inputs.tensor() | {"data": pixels.ravel().tolist()}]
    image = service.client.post("/api/v1/models/small/classify?top_k=4", content=encode(pixels)).json()
    tensor = service.client.post("/v2/models/small/infer", json={"inputs": inputs}).json()
    by_class = {one["index"]: one["probability"] for one in image.get("predictions", ())}
    for probabilities in (
        [by_class.get(index, -1) for index in range(CLASSES)],
        tensor.get("outputs", [{}])[0].get("data", []),
    ):
        if not np.allclose(probabilities, _expected(pixels), atol=1e-5):
            raise CannotMeasure(f"The service returns wrong predictions: {image} and {tensor}")


def _expected(pixels: np.ndarray) -> np.ndarray:
    """Returns the probabilities for the weights that write_version draws."""
    weights = np.random.default_rng(0).normal(size=(pixels.size, CLASSES)).astype(np.float32)
    logits = pixels.ravel() @ (weights / 255)
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def _send_one(client: RawHttpClient, meter: ResourceMeter, case: Case, results: MalformedResults) -> None:
    meter.start()
    timeout_s = SILENT_TIMEOUT_S if case.may_be_silent else ANSWER_TIMEOUT_S
    answer = client.send(case.request_bytes, timeout_s=timeout_s, is_head=case.is_head, is_last=case.may_be_silent)
    extra_bytes, cpu_s = meter.extra_bytes(), meter.cpu_s()
    kind = results.kinds[case.kind]
    kind.outcomes[str(answer.status) if answer else "none"] += 1
    kind.extra_bytes, kind.cpu_s = max(kind.extra_bytes, extra_bytes), max(kind.cpu_s, cpu_s)
    if rule := violated_rule(case, answer, extra_bytes, cpu_s):
        results.violations.append(
            f"{case.kind}: {rule}; sent {len(case.request_bytes)} bytes, {case.request_bytes[:SHOWN_BYTES]!r}"
        )
        print(f"BROKEN: {results.violations[-1]}", flush=True)


def _content(results: MalformedResults, real: bool) -> str:
    before, after = (value / 1e6 for value in results.resident_bytes)
    outcomes = sum((kind.outcomes for kind in results.kinds.values()), Counter())
    paragraphs = [
        f"{results.count:,} requests in {results.seconds:,.0f} s, images "
        + ("drawn in code and real photographs." if real else "drawn in code."),
        f"Responses: {_format_counts(outcomes)}. Violated rules: {len(results.violations)}.",
        f"Maximum per request: {max(kind.extra_bytes for kind in results.kinds.values()) / 1e6:.0f} MB of memory, "
        f"{max(kind.cpu_s for kind in results.kinds.values()):.2f} s of one core. Resident memory before the first "
        f"{before:.0f} MB, after the last {after:.0f} MB. Valid requests in between and at the end were correct.",
    ]
    rows = [
        [
            name,
            f"{kind.outcomes.total():,}",
            _format_counts(kind.outcomes),
            f"{kind.extra_bytes / 1e6:.0f}",
            f"{kind.cpu_s:.2f}",
        ]
        for name, kind in sorted(results.kinds.items())
    ]
    head = ["kind", "sent", "responses by status", "max. MB of memory", "max. s of a core"]
    return "\n\n".join([*paragraphs, table(head, rows), *(f"- {rule}" for rule in results.violations)])


def _format_counts(outcomes: Counter[str]) -> str:
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(outcomes.items()))
