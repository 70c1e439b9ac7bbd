"""A real Prometheus with the configuration for keys reads the metrics of a service that requires them."""

import shutil
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from service.cli.keys import key
from tests.bench.processes import free_ports, run_process
from tests.monitoring import shipped_config
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

TIMEOUT_S = 60.0


def scraped_target(config: Path, folder: Path) -> dict[str, str]:
    """Returns the only target of a Prometheus with this configuration, after its first scrape."""
    (port,) = free_ports()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (
        run_process([*command, f"--web.listen-address=127.0.0.1:{port}"], {}, folder / "log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        end_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end_s:
            try:
                answer = client.get("/api/v1/targets").raise_for_status()
                (target,) = answer.json()["data"]["activeTargets"]
                if target["health"] != "unknown":
                    return target
            except (httpx.HTTPError, ValueError):
                pass  # Prometheus is starting, or has not read its targets
            time.sleep(0.1)
    raise TimeoutError((folder / "log").read_text())


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus (Debian's package) is not installed")
@pytest.mark.parametrize(("scopes", "health"), [("metrics", "up"), ("inference", "down")])
def test_prometheus_scrapes_with_its_key(tmp_path: Path, scopes: str, health: str) -> None:
    models, keys = tmp_path / "models", tmp_path / "keys"
    models.mkdir()
    write_version(models, "digits", 1)
    made = CliRunner().invoke(key, ["prometheus", "--scopes", scopes, "--append", str(keys)])
    (tmp_path / "key").write_text(made.output)
    with RunningService(models, keys_file=keys) as service:
        address = service.url.removeprefix("http://")
        config = shipped_config.copy_for(address, tmp_path / "config", "prometheus-keys.yml")
        config.write_text(config.read_text().replace("/etc/prometheus/keys/key", str(tmp_path / "key")))
        target = scraped_target(config, tmp_path)
    assert target["health"] == health, target["lastError"]
    assert ("403" in target["lastError"]) == (health == "down")
