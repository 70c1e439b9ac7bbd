"""Forms as browsers and libraries send them: text fields are parameters, and media types have no case."""

import httpx
import pytest

from tests.support.images import image_bytes
from tests.support.service_process import RunningService

LINEAR = "/api/v1/models/linear"


def encoded(field: str, **fields: str) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://x", files={field: ("a.png", image_bytes())}, data=fields)
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize(("path", "field"), [("/classify", "file"), ("/classify/batch", "files")])
def test_text_fields_of_a_form_are_parameters(service: RunningService, path: str, field: str) -> None:
    body, content_type = encoded(field, top_k="2", version="1", submit="Classify")
    for kind in (content_type, content_type.replace("multipart/form-data", "Multipart/Form-Data")):
        reply = service.client.post(LINEAR + path, content=body, headers={"content-type": kind}).json()
        predictions = reply["predictions"] if field == "file" else reply["results"][0]["predictions"]
        assert (reply["version"], len(predictions)) == ("1", 2)
    differing = service.client.post(f"{LINEAR}{path}?top_k=3", content=body, headers={"content-type": content_type})
    assert (differing.status_code, differing.json()["error"]["code"]) == (400, "bad_request")
    assert "'top_k' is '3' in the query and '2' in the form" in differing.json()["error"]["message"]


def test_the_method_of_an_explanation_may_be_a_text_field(service: RunningService) -> None:
    body, content_type = encoded("file", method="input")
    reply = service.client.post(f"{LINEAR}/explain", content=body, headers={"content-type": content_type})
    assert reply.json()["method"] == "input"


def test_a_json_batch_is_json_in_any_case(service: RunningService) -> None:
    reply = service.client.post(
        f"{LINEAR}/classify/batch?_=1", content=b'{"images": []}', headers={"content-type": "Application/JSON"}
    )
    assert reply.json()["error"]["message"] == "images: a list of at least one image is needed."
