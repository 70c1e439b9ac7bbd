"""docker-compose.yml: versions are pinned, files exist, and services are confined."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
WITH_KEYS = ROOT / "docker-compose.keys.yml"
DOCKERFILES = (ROOT / "service/Dockerfile", ROOT / "training/Dockerfile")
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*(@sha256:[0-9a-f]{64})?")
PROFILES = {"gpu": {"convoy-gpu"}, "load": {"load"}, "train": {"train", "tensorboard"}}

Service = dict[str, Any]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    services_by_name: dict[str, Service] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services_by_name


def test_every_image_is_pinned_by_a_full_version(services: dict[str, Service]) -> None:
    assert not [service["image"] for service in services.values() if not PINNED.fullmatch(service["image"])]


def test_our_own_images_carry_the_project_s_version(services: dict[str, Service]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {service["image"].partition(":")[2] for service in services.values() if "build" in service}
    assert {tag.removesuffix("-gpu") for tag in tags} == {version}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_every_stage_starts_from_the_pinned_base_or_another_stage(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert PINNED.fullmatch(base)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    assert {origin for origin, _ in stages} <= {"${BASE}"} | {name for _, name in stages}


def test_every_build_target_exists(services: dict[str, Service]) -> None:
    for build in (service["build"] for service in services.values() if "build" in service):
        stages = re.findall(r" AS (\S+)$", (ROOT / build["dockerfile"]).read_text(), re.MULTILINE)
        assert build["target"] in stages


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_copied_files_exist_and_are_sent_to_the_builder(dockerfile: Path) -> None:
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE):
        for name in line.replace("${LIBRARIES}", "serve").split():
            assert (ROOT / name).exists(), name
            assert any(Path(name).match(pattern) or pattern.startswith(f"{name}/") for pattern in allowed), name


def test_every_mounted_file_exists(services: dict[str, Service]) -> None:
    mounts = [mount.partition(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith("./") and not (ROOT / mount).exists()] == []
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    assert {mount for mount in mounts if not mount.startswith("./")} == set(volumes)


def test_only_the_profiles_start_more_than_the_service_and_its_monitoring(services: dict[str, Service]) -> None:
    of_profile = {
        name: {s for s, service in services.items() if name in service.get("profiles", [])} for name in PROFILES
    }
    assert of_profile == PROFILES
    assert {s for s, service in services.items() if "profiles" not in service} == {"convoy", "prometheus", "grafana"}


def test_ports_are_published_on_localhost_only(services: dict[str, Service]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", ["convoy", "convoy-gpu"])
def test_a_service_is_confined(services: dict[str, Service], name: str) -> None:
    service = services[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


@pytest.mark.parametrize("name", ["convoy", "convoy-gpu"])
def test_prometheus_looks_for_every_service(name: str) -> None:
    (job,) = yaml.safe_load((ROOT / "k8s/monitoring/prometheus.yml").read_text())["scrape_configs"]
    (lookup,) = job["dns_sd_configs"]
    assert name in lookup["names"]
    assert lookup["port"] == Settings.model_fields["port"].default


needs_compose = pytest.mark.skipif(not shutil.which("docker-compose"), reason="there is no docker-compose to ask")


def rendered(*files: Path) -> dict[str, Service]:
    """Returns the services of all profiles as docker-compose renders the files together."""
    options = [option for file in files for option in ("--file", file)]
    profiles = [option for name in PROFILES for option in ("--profile", name)]
    process = subprocess.run(["docker-compose", *options, *profiles, "config"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    services_by_name: dict[str, Service] = yaml.safe_load(process.stdout)["services"]
    return services_by_name


def mounts(service: Service) -> dict[str, str]:
    """Returns the source of each mount by its target; relative sources are paths from the repository's root."""
    triples = (mount.split(":") for mount in service["volumes"])
    return {target: source.removeprefix(f"{ROOT}/") for source, target, *_ in triples}


@needs_compose
def test_the_file_follows_the_compose_specification() -> None:
    assert rendered(COMPOSE).keys() >= {"convoy", *(name for names in PROFILES.values() for name in names)}


@needs_compose
@pytest.mark.parametrize("name", ["convoy", "convoy-gpu"])
def test_with_keys_every_service_reads_them_and_is_otherwise_the_same(name: str) -> None:
    plain, with_keys = rendered(COMPOSE)[name], rendered(COMPOSE, WITH_KEYS)[name]
    file = Path(with_keys["environment"].pop("CONVOY_KEYS_FILE"))
    assert mounts(with_keys)[str(file.parent)] == "keys/service"
    assert with_keys["environment"] == plain.get("environment", {})
    assert {mount for mount in with_keys["volumes"] if "keys/service" not in mount} == set(plain["volumes"])
    assert with_keys.keys() - {"environment"} == plain.keys() - {"environment"}


@needs_compose
def test_with_keys_prometheus_has_its_own_and_the_service_does_not() -> None:
    services = rendered(COMPOSE, WITH_KEYS)
    mounted = mounts(services["prometheus"])
    config = yaml.safe_load((ROOT / mounted["/etc/prometheus/prometheus.yml"]).read_text())
    (job,) = config["scrape_configs"]
    file = Path(job["authorization"]["credentials_file"])
    assert (mounted[str(file.parent)], file.name) == ("keys/prometheus", "key")
    assert mounted["/etc/prometheus/rules.yml"] == "k8s/monitoring/rules.yml"
    assert "keys/prometheus" not in mounts(services["convoy"]).values()


def test_keys_are_neither_committed_nor_sent_to_the_builder() -> None:
    assert "/keys/" in (ROOT / ".gitignore").read_text().splitlines()
    assert not [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!keys")]
