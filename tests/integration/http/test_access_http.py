"""Access control over HTTP behind an ingress: keys and scopes, CORS, root path, proxies, page headers."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.documentation import ROOT
from tests.support.images import image_bytes
from tests.support.service_process import RunningService

INFERENCE, REPOSITORY, METRICS = (f"{name}-key-long-enough" for name in ("inference", "repository", "metrics"))
CLASSIFY = "/api/v1/models/linear/classify"
LOAD = "/v2/repository/models/linear/load"
PAGE_ORIGIN = "https://shop.example"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# from a file\nshop inference {INFERENCE}\nops repository,metrics {REPOSITORY}\n")
    return file


@pytest.fixture(scope="module")
def secured(zoo: Path, keys_file: Path) -> Iterator[RunningService]:
    with RunningService(
        zoo,
        keys=f"prometheus metrics {METRICS}",
        keys_file=keys_file,
        repository_changes="true",
        cors_origins=f"{PAGE_ORIGIN}, https://other.example",
        root_path="/convoy",
        trusted_proxies="127.0.0.0/8",
        allowed_hosts="images.example,*.shop.example",
    ) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", CLASSIFY, INFERENCE, 200),
        ("POST", CLASSIFY, METRICS, 403),
        ("POST", CLASSIFY, "", 401),
        ("POST", CLASSIFY, INFERENCE + "x", 401),
        ("GET", "/api/v1/models", INFERENCE, 200),
        ("GET", "/api/v1/models", "", 401),
        ("GET", "/v1/models", "", 401),
        ("GET", "/v2/models/linear", "", 401),
        ("POST", "/v2/repository/index", INFERENCE, 200),
        ("POST", LOAD, REPOSITORY, 200),
        ("POST", LOAD, INFERENCE, 403),
        ("POST", LOAD, "", 401),
        ("GET", "/metrics", METRICS, 200),
        ("GET", "/metrics", REPOSITORY, 200),
        ("GET", "/metrics", INFERENCE, 403),
        ("GET", "/metrics", "", 401),
        ("GET", "/metrics/", "", 401),
        ("GET", "//metrics", "", 401),
        ("GET", "/nowhere", "", 401),
        ("GET", "/health/live", "", 200),
        ("GET", "/health/ready", "", 200),
        ("GET", "/v2/health/ready", "", 200),
        ("GET", "/docs", "", 200),
        ("GET", "/docs/swagger-ui.css", "", 200),
        ("GET", "/openapi.json", "", 200),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/convoy"], ids=["cut off by the ingress", "with the root path"])
def test_a_key_allows_only_its_scopes(
    secured: RunningService, method: str, path: str, key: str, status: int, prefix: str
) -> None:
    content = image_bytes() if path == CLASSIFY else b""
    headers = bearer(key) if key else {}
    reply = httpx.request(method, secured.url + prefix + path, content=content, headers=headers)
    assert reply.status_code == status, reply.text


def test_a_rejection_states_how_to_get_access(secured: RunningService) -> None:
    client = secured.client
    missing, wrong = client.post(CLASSIFY), client.post(CLASSIFY, headers=bearer("wrong"))
    assert missing.json()["error"]["code"] == wrong.json()["error"]["code"] == "unauthenticated"
    assert "Authorization: Bearer" in missing.json()["error"]["hint"]
    assert missing.headers["www-authenticate"] == 'Bearer realm="convoy"'
    assert wrong.headers["www-authenticate"] == 'Bearer realm="convoy", error="invalid_token"'
    v2_reply = client.post("/v2/models/linear/infer", headers=bearer(METRICS))
    assert (v2_reply.status_code, v2_reply.json()["code"]) == (403, "forbidden")
    assert "'prometheus' is not for 'inference'" in v2_reply.json()["error"]
    expected = 'Bearer realm="convoy", error="insufficient_scope", scope="inference"'
    assert v2_reply.headers["www-authenticate"] == expected


def test_the_log_names_the_key_and_never_shows_it(secured: RunningService) -> None:
    secured.client.post(CLASSIFY, content=image_bytes(), headers=bearer(INFERENCE) | {"x-request-id": "who-was-it"})
    assert secured.wait_for_line(request_id="who-was-it")["key"] == "shop"
    secured.client.get("/metrics", headers=bearer("a-wrong-key-of-somebody") | {"x-request-id": "a-stranger"})
    assert secured.wait_for_line(request_id="a-stranger")["error"] == "unauthenticated"
    log_text = str(secured.lines)
    assert not any(key in log_text for key in (INFERENCE, REPOSITORY, METRICS, "a-wrong-key-of-somebody"))


def test_a_changed_key_file_takes_effect(secured: RunningService, keys_file: Path) -> None:
    before = keys_file.read_text()
    new = "a-new-key-for-inference"
    keys_file.write_text(f"{before}new inference {new}\n")
    secured.wait_until(lambda: secured.client.get("/v1/models", headers=bearer(new)).status_code == 200)
    keys_file.write_text("no key at all")
    secured.wait_until(lambda: secured.client.get("/v1/models", headers=bearer("x")) and logged_bad_keys(secured))
    assert secured.client.get("/v1/models", headers=bearer(new)).status_code == 200
    keys_file.write_text(before)
    secured.wait_until(lambda: secured.client.get("/v1/models", headers=bearer(new)).status_code == 401)


def logged_bad_keys(service: RunningService) -> bool:
    return any(line["event"] == "keys are invalid" for line in list(service.lines))


def test_openapi_documents_where_a_key_is_needed(secured: RunningService, service: RunningService) -> None:
    paths = secured.client.get("/openapi.json").json()["paths"]
    assert paths["/api/v1/models/{model}/classify"]["post"]["security"] == [{"key": []}]
    assert {"401", "403"} <= paths["/metrics"]["get"]["responses"].keys()
    assert "security" not in paths["/health/live"]["get"]
    assert "securitySchemes" not in service.client.get("/openapi.json").json()["components"]


def test_pages_of_the_allowed_origins_may_call(secured: RunningService) -> None:
    preflight_headers = {
        "origin": PAGE_ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    allowed = secured.client.options(CLASSIFY, headers=preflight_headers)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE_ORIGIN
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    refused = secured.client.post(CLASSIFY, headers={"origin": PAGE_ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE_ORIGIN, "the page must see that it needs a key"
    other_origin = secured.client.options(CLASSIFY, headers=preflight_headers | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other_origin.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://HERE"}, 200),
        ({"origin": "http://HERE", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": PAGE_ORIGIN, "sec-fetch-site": "cross-site"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[HERE"}, 403),
        ({"origin": ""}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "https://name.of.the.proxy", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://HERE", "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_pages_of_other_origins_change_no_models(secured: RunningService, headers: dict[str, str], status: int) -> None:
    """A browser would send the request without a preflight request, and only hide the response from the page."""
    own_host = secured.url.partition("://")[2]
    sent_headers = {name: value.replace("HERE", own_host) for name, value in headers.items()} | bearer(REPOSITORY)
    reply = secured.client.post(LOAD, headers=sent_headers)
    assert reply.status_code == status, reply.text
    if status == 403:
        assert "A web page of another origin may not" in reply.json()["error"]
        assert secured.client.post("/v2/repository/index", headers=sent_headers | bearer(INFERENCE)).status_code == 403
        assert secured.client.get("/api/v1/models", headers=sent_headers | bearer(INFERENCE)).status_code == 200


@pytest.mark.parametrize(
    "path", [CLASSIFY, f"{CLASSIFY}/batch", "/v2/models/linear/infer", "/v1/models/linear:predict"]
)
def test_without_keys_no_page_of_another_origin_makes_a_browser_send_images(service: RunningService, path: str) -> None:
    """A browser sends text without a preflight request."""
    headers = {"origin": PAGE_ORIGIN, "content-type": "text/plain"}
    reply = service.client.post(path, content=image_bytes(), headers=headers)
    assert reply.status_code == 403
    assert "A web page of another origin may not" in reply.text


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("images.example", 200), ("eu.shop.example", 200)])
def test_a_page_whose_name_is_redirected_to_the_service_is_rejected(
    secured: RunningService, host: str, status: int
) -> None:
    """The page has the origin of the service, so the browser sends a GET without the header Origin."""
    headers = {"host": host, "origin": f"http://{host}"} | bearer(INFERENCE)
    posted = secured.client.post(CLASSIFY, content=image_bytes(), headers=headers)
    assert posted.status_code == status, posted.text
    assert secured.client.get("/docs", headers={"host": host}).status_code == status
    if status == 403:
        assert posted.json()["error"]["code"] == "not_allowed"
        assert "The Host header does not contain a name" in secured.client.post(LOAD, headers=headers).json()["error"]
        preflight = headers | {"access-control-request-method": "POST"}
        assert secured.client.options(CLASSIFY, headers=preflight).status_code == status


def test_without_the_setting_every_name_is_answered(service: RunningService) -> None:
    headers = {"host": "convoy.default.svc:8000", "origin": "http://convoy.default.svc:8000"}
    assert service.client.post(CLASSIFY, content=image_bytes(), headers=headers).status_code == 200


def test_without_settings_there_are_neither_keys_nor_cors(service: RunningService) -> None:
    reply = service.client.post(CLASSIFY, content=image_bytes(), headers={"origin": service.url})
    assert reply.status_code == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


PAGE_PATHS = ["/", "/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js"]
PAGE_PATHS += [f"/playground/{file.name}" for file in sorted((ROOT / "service/api/pages/static").iterdir())]


@pytest.mark.parametrize("path", PAGE_PATHS)
def test_pages_have_security_headers_and_answers_for_programs_do_not(service: RunningService, path: str) -> None:
    headers = service.client.get(path, headers={"accept": "text/html"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "script-src" not in policy, "scripts are as default-src says: no inline ones"
    assert "content-security-policy" not in service.client.get("/api/v1/models").headers


def test_forwarded_headers_are_used_only_from_trusted_proxies(secured: RunningService, service: RunningService) -> None:
    for running, client in ((secured, "203.0.113.7"), (service, "127.0.0.1")):
        headers = {"x-forwarded-for": "203.0.113.7", "x-request-id": f"for-{client}"}
        running.client.get("/health/live", headers=headers)
        assert running.wait_for_line(request_id=f"for-{client}")["client"] == client


def test_a_client_cannot_choose_the_address_that_its_proxy_adds_to(secured: RunningService) -> None:
    headers = {"x-forwarded-for": "198.51.100.9, 203.0.113.7", "x-request-id": "forged"}
    secured.client.get("/health/live", headers=headers)
    assert secured.wait_for_line(request_id="forged")["client"] == "203.0.113.7"


def test_keys_that_cannot_be_read_are_reported_before_anything_listens(tmp_path: Path) -> None:
    import subprocess

    from tests.support.service_process import CONVOY

    result = subprocess.run([CONVOY, "serve", "--keys", "shop all x"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    line = json.loads(result.stderr)
    assert line["event"] == "cannot start"
    assert line["reason"].startswith("CONVOY_KEYS, line 1 has an unknown scope; the scopes are inference, ")
