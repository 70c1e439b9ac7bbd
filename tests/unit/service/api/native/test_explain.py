"""The endpoint that explains an answer."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from service.api.http.body import BodyReader
from service.api.http.body_budget import BodyBudget
from service.api.http.parse_thread import ParseThread
from service.api.http.response_encoder import ResponseEncoder
from service.api.native import explain
from service.classification.classifier import Classifier
from service.classification.explainer import Explainer
from service.errors import QueueFull
from service.loaded_models.registry import Registry
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.unit.service.api.scopes import request_scope
from tests.unit.service.classification.classifiers import with_classifier


async def receive() -> Message:
    return {"type": "http.request", "body": image_bytes(8, 8), "more_body": False}


@pytest.mark.parametrize("accept", [b"image/png", b"application/json"])
def test_a_client_has_one_explanation_at_a_time_until_it_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: bytes
) -> None:
    """The image of a large model takes 100 ms to encode, which is more than all that comes before."""
    write_version(tmp_path, "linear")
    name = "_to_png" if accept == b"image/png" else "_to_json"
    encode, threads, is_encoding, release = getattr(explain, name), list[str](), threading.Event(), threading.Event()

    def encode_slowly(*args: Any) -> bytes:
        threads.append(threading.current_thread().name)
        is_encoding.set()
        release.wait(30)
        return bytes(encode(*args))

    monkeypatch.setattr(explain, name, encode_slowly)

    async def test(classifier: Classifier, registry: Registry) -> None:
        budget, sent = BodyBudget(10**9, lambda: None), list[Message]()

        async def send(message: Message) -> None:
            sent.append(message)

        with (
            closing(Explainer(classifier, 1024)) as explainer,
            closing(ParseThread(10, lambda: None)) as parse_thread,
            closing(ResponseEncoder(10**9, budget)) as encoder,
        ):
            endpoint = explain.Explain(explainer, BodyReader(10**6, budget, parse_thread), encoder)

            async def ask(client: str) -> None:
                scope = request_scope(client, [(b"accept", accept)])
                scope |= {"query_string": b"method=input", "path_params": {"model": "linear"}}
                await endpoint(scope, receive, send)

            first = asyncio.create_task(ask("one"))
            assert await asyncio.to_thread(is_encoding.wait, 30)
            with pytest.raises(QueueFull, match="for this client"):
                await ask("one")
            release.set()
            await first
            await ask("one")
        assert [message["status"] for message in sent if "status" in message] == [200, 200]
        assert {name.partition("_")[0] for name in threads} == {"explain"}

    with_classifier(tmp_path, test)
