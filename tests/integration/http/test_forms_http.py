"""Forms as browsers and libraries send them: text fields are parameters, and media types are case-insensitive."""

import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Callable

import httpx
import pytest

from tests.integration.conftest import MAX_BODY_BYTES
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


@pytest.mark.parametrize(("path", "field"), [("/classify", "file"), ("/classify/batch", "files"), ("/explain", "file")])
def test_a_repeated_parameter_must_have_one_value(service: RunningService, path: str, field: str) -> None:
    body, content_type = encoded(field, version="01")
    for query, status in [("?version=1&version=001", 200), ("?version=1&version=2", 400), ("?version=2", 400)]:
        reply = service.client.post(LINEAR + path + query, content=body, headers={"content-type": content_type})
        assert reply.status_code == status, (query, reply.text)


@pytest.mark.parametrize(("path", "field"), [("/classify", "file"), ("/classify/batch", "files"), ("/explain", "file")])
def test_empty_inputs_of_an_html_form_are_ignored(service: RunningService, path: str, field: str) -> None:
    """Browsers send a file input without a file as a part without name and content."""
    body, content_type = encoded(field, version="")
    empty_input = b'Content-Disposition: form-data; name="mask"; filename=""\r\nContent-Type: application/octet-stream'
    boundary = b"--" + content_type.partition("boundary=")[2].encode() + b"\r\n"
    body = boundary + empty_input + b"\r\n\r\n\r\n" + body
    reply = service.client.post(LINEAR + path, content=body, headers={"content-type": content_type})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(("path", "field"), [("/classify", "file"), ("/classify/batch", "files"), ("/explain", "file")])
def test_two_versions_are_a_conflict_even_if_one_is_not_loaded(service: RunningService, path: str, field: str) -> None:
    def post(query: str, **fields: str) -> httpx.Response:
        body, content_type = encoded(field, **fields)
        return service.client.post(f"{LINEAR}{path}{query}", content=body, headers={"content-type": content_type})

    for asked, sent in (("9", "1"), ("1", "9"), ("9", "8")):
        reply = post(f"?version={asked}", version=sent)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
        assert f"'version' is '{asked}' in the query and '{sent}' in the form" in reply.json()["error"]["message"]
    for reply in (post("?version=9", version="9"), post("?version=9"), post("", version="9")):
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_version")


def test_the_method_of_an_explanation_may_be_a_text_field(service: RunningService) -> None:
    body, content_type = encoded("file", method="input")
    reply = service.client.post(f"{LINEAR}/explain", content=body, headers={"content-type": content_type})
    assert reply.json()["method"] == "input"


def test_a_json_batch_is_json_in_any_case(service: RunningService) -> None:
    reply = service.client.post(
        f"{LINEAR}/classify/batch?_=1", content=b'{"images": []}', headers={"content-type": "Application/JSON"}
    )
    assert reply.json()["error"]["message"] == "images must be a list of at least one image."


def test_an_invalid_json_batch_gets_a_hint_about_batches(service: RunningService) -> None:
    headers = {"content-type": "application/json"}
    error = service.client.post(f"{LINEAR}/classify/batch", content=b'{"images": [', headers=headers).json()["error"]
    assert error["code"] == "bad_request"
    assert error["message"].startswith("The body is not valid JSON at byte 12")
    assert error["hint"].startswith('Send {"images": [{"data": "<base64>"}]}')


BATCH = json.dumps({"images": [{"data": b64encode(image_bytes()).decode()}]}).encode()


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_bodies_of_all_own_routes_may_be_compressed(
    service: RunningService, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    form, form_type = encoded("file", top_k="1")
    for path, content, kind in [
        ("/classify", image_bytes(), "image/png"),
        ("/classify", form, form_type),
        ("/classify/batch", BATCH, "application/json"),
        ("/explain", image_bytes(), "image/png"),
    ]:
        headers = {"content-encoding": coding, "content-type": kind}
        reply = service.client.post(LINEAR + path, content=compress(content), headers=headers)
        assert reply.status_code == 200, (path, reply.text)


@pytest.mark.parametrize("path", ["/classify", "/classify/batch", "/explain"])
def test_codings_of_own_routes_have_the_same_bounds(service: RunningService, path: str) -> None:
    def error(content: bytes, coding: str) -> tuple[int, str]:
        headers = {"content-encoding": coding, "content-type": "application/json"}
        reply = service.client.post(LINEAR + path, content=content, headers=headers)
        return reply.status_code, reply.json()["error"]["code"]

    assert error(BATCH, "br") == (415, "unsupported_media_type")
    assert error(b"no gzip", "gzip") == (400, "bad_request")
    assert error(gzip.compress(bytes(MAX_BODY_BYTES + 1)), "gzip") == (413, "body_too_large")
