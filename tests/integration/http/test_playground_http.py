"""The playground's files exist, even under a root path, and no script is inline."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import httpx
import pytest

from tests.bench.processes import free_ports
from tests.documentation import ROOT
from tests.support.nginx import NGINX, running_nginx
from tests.support.service_process import RunningService

STATIC = ROOT / "service/api/pages/static"
REFERENCES = re.compile(r"""(?:src|href)="([^"#]+)"|from "\./([\w.]+)";""")


@pytest.fixture(scope="module")
def proxied_service(zoo: Path) -> Iterator[RunningService]:
    with RunningService(zoo, root_path="/convoy") as running:
        yield running


@pytest.mark.parametrize("prefix", ["", "/convoy"], ids=["stripped", "kept"])
def test_every_file_is_served_with_and_without_the_root_path(proxied_service: RunningService, prefix: str) -> None:
    page = proxied_service.client.get(f"{prefix}/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    for file in STATIC.iterdir():
        reply = proxied_service.client.get(f"{prefix}/playground/{file.name}")
        assert (reply.status_code, reply.content) == (200, file.read_bytes()), file.name
        again = proxied_service.client.get(
            f"{prefix}/playground/{file.name}", headers={"if-none-match": reply.headers["etag"]}
        )
        assert (again.status_code, reply.headers["cache-control"]) == (304, "no-cache")


@pytest.mark.parametrize("prefix", ["", "/convoy"], ids=["stripped", "kept"])
def test_redirects_keep_the_root_path_whether_the_proxy_keeps_it_or_not(
    proxied_service: RunningService, prefix: str
) -> None:
    reply = proxied_service.client.get(f"{prefix}/v2/health/live/?a=b", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (307, "/convoy/v2/health/live?a=b")
    assert proxied_service.client.get(reply.headers["location"].partition("?")[0]).status_code == 200
    assert proxied_service.client.get(f"{prefix}/convoyed").status_code == 404


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize(
    "forward",
    [
        "location /convoy/ { proxy_pass http://service/; }",
        "location /convoy/ { proxy_pass http://service; }",
        "location /convoy/ { proxy_pass http://service/; proxy_set_header Host $http_host; }",
        "location /convoy { rewrite ^/convoy(/.*)$ $1 break; proxy_pass http://service; }",
    ],
    ids=["stripped", "kept", "stripped, client's host", "rewritten"],
)
def test_redirects_behind_nginx_lead_to_the_same_address_without_the_slash(
    proxied_service: RunningService, tmp_path: Path, forward: str
) -> None:
    upstream = f"upstream service {{ server {urlparse(proxied_service.url).netloc}; }}"
    (port,) = free_ports()
    http = f"{upstream}\nserver {{ listen 127.0.0.1:{port}; {forward} }}"
    with running_nginx(tmp_path / "nginx", http, port) as address:
        reply = httpx.get(f"http://{address}/convoy/v2/health/live/", follow_redirects=True)
    assert (reply.status_code, str(reply.url)) == (200, f"http://{address}/convoy/v2/health/live")
    assert [one.status_code for one in reply.history] == [307]


@pytest.mark.parametrize("name", ["", "nothing.js", "..%2fapp.py", "%2e%2e/app.py", "../app.py"])
def test_other_files_are_not_served(proxied_service: RunningService, name: str) -> None:
    assert proxied_service.client.get(f"/playground/{name}").status_code == 404


def test_referenced_files_exist() -> None:
    referenced = {
        page or f"playground/{module}"
        for file in STATIC.iterdir()
        for page, module in REFERENCES.findall(file.read_text(encoding="utf-8"))
    }
    assert {f"playground/{name}" for name in ("app.js", "style.css", "mnist.js")} <= referenced
    for name in referenced - {"docs"}:
        assert (STATIC / name.removeprefix("playground/")).is_file(), name


def test_the_page_works_under_a_strict_content_security_policy() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    scripts = "".join(file.read_text(encoding="utf-8") for file in STATIC.glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|new Function", scripts)
