"""Files of k8s/ agree with each other and with the code: ports, paths, settings, times, cores, metrics, commands."""

import json
import re
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from service.app import create_app
from service.cli import cli as convoy
from service.exit_codes import EXIT_PARTIAL, EXIT_PEER_LOST, EXIT_RETRY, FINAL_EXIT_CODES
from service.hardware import usable_cores
from service.model_store.desired_state import StateFile
from service.observability.metrics import Metrics, model_info, version_metrics
from service.observability.service_metrics import service_metrics
from service.settings import PREFIX, Settings
from service.workers.worker_status import WorkerStatusStore
from tests.monitoring import shipped_config
from tests.support.kubernetes_manifests import (
    COMPATIBLE_COMPONENTS,
    JOBS,
    K8S,
    ROOT,
    Manifest,
    container_of,
    environment,
    of_kind,
    pod_of,
    render,
    service_manifests,
    settings_of,
)
from tests.support.kubernetes_manifests import all_kustomizations as all_rendered
from training.cli import main as convoy_train
from training.errors import PeerLost, PeerMissing

USER = 10001
SATURATION = "convoy:saturation:rate1m"
# Environment variables that training reads.
OF_TRAINING = {"CONVOY_DATA", "CONVOY_COORDINATOR", "CONVOY_NUM_PROCESSES"}
CONTAINER = re.compile(r"\bcontainer(=[^,}]*)")
METRIC = re.compile(r"\bconvoy_[a-z_]+\b")
QUERIES = re.compile(r'"(?:expr|query)": "((?:[^"\\]|\\.)*)"')
MIB = 2**20


def policies(manifests: tuple[Manifest, ...]) -> dict[str, Manifest]:
    """Returns the spec of each NetworkPolicy by name."""
    return {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"}


@pytest.fixture
def paths(tmp_path: Path) -> set[str]:
    """Returns the paths of the service."""
    app = create_app(Settings(), WorkerStatusStore(tmp_path), StateFile(tmp_path / "state.json"))
    return {*app.openapi()["paths"], "/", "/docs", "/openapi.json", "/playground/{name}"}


@pytest.fixture
def metrics() -> set[str]:
    """Returns the names of all samples that the service can export."""
    service = service_metrics()
    own = Metrics()
    families = [*own.registry.collect(), *own.process_metrics(), *version_metrics({}), model_info([]), *service]
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
    return {f.name + suffix for f in families for suffix in suffixes[f.type]}


def test_ports_and_probes_match_the_service(monkeypatch: pytest.MonkeyPatch, paths: set[str]) -> None:
    for manifests in service_manifests():
        container, settings = container_of(manifests), settings_of(manifests, monkeypatch)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"http": settings.port}
        assert settings.host == "0.0.0.0"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] == "http"
            assert container[probe]["httpGet"]["path"] in paths
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live", (
            "missing readiness must not cause a restart"
        )


def test_every_object_that_names_a_port_names_the_containers() -> None:
    manifests = render(K8S / "overlays/cpu", *COMPATIBLE_COMPONENTS)
    assert [port["targetPort"] for port in of_kind(manifests, "Service")["spec"]["ports"]] == ["http"]
    monitor, ingress = of_kind(manifests, "ServiceMonitor"), of_kind(manifests, "Ingress")
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["http"]
    backends = [path["backend"]["service"] for path in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert backends == [{"name": "convoy", "port": {"name": "http"}}] * len(backends)


def test_the_pods_accept_connections_only_from_their_neighbors_and_open_none() -> None:
    (spec,) = policies(render(K8S / "overlays/cpu")).values()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["from"] for rule in spec["ingress"]] == [[{"podSelector": {}}]], "the pods of this namespace"
    assert not spec.get("egress"), "no outgoing connections"


def test_components_allow_one_namespace_each_and_egress_only_to_the_bucket() -> None:
    network_policies = policies(render(K8S / "overlays/cpu", *COMPATIBLE_COMPONENTS))
    assert network_policies.keys() == {"convoy", "convoy-ingress", "convoy-metrics", "convoy-bucket"}
    for name, spec in network_policies.items():
        assert spec["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "convoy"}}, "and no other pod"
        for rule in spec.get("ingress", []):
            assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
            assert rule["from"], f"{name} admits all clients"
            assert all(one.keys() & {"podSelector", "namespaceSelector"} for one in rule["from"])
    namespaces = {name: network_policies[name]["ingress"][0]["from"] for name in ("convoy-ingress", "convoy-metrics")}
    assert namespaces == {
        "convoy-ingress": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
        "convoy-metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    }
    assert [name for name, spec in network_policies.items() if "egress" in spec] == ["convoy-bucket"]
    ports = {
        (port["port"], port["protocol"])
        for rule in network_policies["convoy-bucket"]["egress"]
        for port in rule["ports"]
    }
    assert ports == {(53, "UDP"), (53, "TCP"), (443, "TCP")}


def test_selectors_find_the_pods() -> None:
    manifests = render(K8S / "overlays/cpu", *COMPATIBLE_COMPONENTS)
    labels = of_kind(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind(manifests, "Service")["spec"]["selector"].items() <= labels.items()
    assert of_kind(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    monitored = of_kind(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= of_kind(manifests, "Service")["metadata"]["labels"].items()


def test_the_environment_contains_only_valid_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    setting_names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OF_TRAINING
    for name, manifests in all_rendered():
        if any(pod_of(manifest) for manifest in manifests):
            variables = {key for key in environment(manifests) if key.startswith(PREFIX)}
            assert variables <= setting_names, name
    for manifests in service_manifests():
        settings_of(manifests, monkeypatch)


def test_threads_are_whole_cores_that_no_other_container_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for manifests in service_manifests():
        resources, settings = container_of(manifests)["resources"], settings_of(manifests, monkeypatch)
        cores = int(resources["limits"]["cpu"])
        assert resources["requests"] == {key: resources["limits"][key] for key in ("cpu", "memory")}, "guaranteed"
        assert settings.threads == 0, "counted from the limit"
        assert cores % settings.workers == 0
        (tmp_path / "cpu.max").write_text(f"{cores * 100_000} 100000\n")
        monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64), raising=False)
        assert usable_cores(tmp_path) == cores


def test_the_ingress_exposes_only_routes_for_clients(monkeypatch: pytest.MonkeyPatch, paths: set[str]) -> None:
    manifests = render(K8S / "overlays/cpu", *COMPATIBLE_COMPONENTS)
    ingress, settings = of_kind(manifests, "Ingress"), settings_of(manifests, monkeypatch)
    rules = [(rule["path"], rule["pathType"]) for rule in ingress["spec"]["rules"][0]["http"]["paths"]]
    offered = {path for path in paths if any(_lets_in(rule, kind, path) for rule, kind in rules)}
    internal_paths = {path for path in paths - offered if not path.startswith("/health/")}
    assert internal_paths == {"/metrics", *(path for path in paths if path.startswith("/v2/repository/"))}
    for rule, kind in rules:
        assert any(_lets_in(rule, kind, path) for path in paths), f"nothing is at {rule}"
    annotations = {key.partition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}
    assert annotations["proxy-body-size"] == f"{settings.max_body_bytes // MIB}m"
    assert int(annotations["proxy-read-timeout"]) > settings.request_timeout_ms / 1000
    assert {"limit-rps", "limit-connections"} <= annotations.keys()
    assert [host for entry in ingress["spec"]["tls"] for host in entry["hosts"]] == [
        ingress["spec"]["rules"][0]["host"]
    ]


def _lets_in(rule: str, kind: str, path: str) -> bool:
    """Returns whether a rule matches a path. Prefixes match whole path elements, as defined for Ingress."""
    return path == rule or (kind == "Prefix" and path.startswith(rule.rstrip("/") + "/"))


def test_the_autoscalers_agree_and_their_metrics_exist(metrics: set[str]) -> None:
    with_keda = render(K8S / "overlays/cpu", *COMPATIBLE_COMPONENTS)
    assert not [one for one in with_keda if one["kind"] == "HorizontalPodAutoscaler"], "two autoscalers would conflict"
    scaled = of_kind(with_keda, "ScaledObject")["spec"]
    own = of_kind(render(K8S / "overlays/cpu"), "HorizontalPodAutoscaler")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (own["minReplicas"], own["maxReplicas"])
    triggers = {trigger["type"]: trigger["metadata"] for trigger in scaled["triggers"]}
    assert triggers["prometheus"]["query"] == f'sum({SATURATION}{{namespace="default"}})'
    assert triggers["prometheus"]["ignoreNullValues"] == "false", "no data would count as no load"
    with_metrics = of_kind(render(K8S / "overlays/cpu", "monitoring", "custom-metrics"), "HorizontalPodAutoscaler")
    (pods,) = [one["pods"] for one in with_metrics["spec"]["metrics"] if one["type"] == "Pods"]
    (rule,) = yaml.safe_load((K8S / "monitoring/prometheus-adapter.yml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == pods["metric"]["name"]
    assert rule["seriesQuery"].startswith(SATURATION + "{")
    assert float(triggers["prometheus"]["threshold"]) == int(pods["target"]["averageValue"].removesuffix("m")) / 1000
    cpu = [one["resource"]["target"] for one in with_metrics["spec"]["metrics"] if one["type"] == "Resource"]
    assert cpu == [one["resource"]["target"] for one in own["metrics"]]
    assert int(triggers["cpu"]["value"]) == cpu[0]["averageUtilization"]
    assert SATURATION in shipped_config.recorded()
    assert set(METRIC.findall(shipped_config.recorded()[SATURATION])) <= metrics


def test_the_autoscaler_of_gpus_does_not_look_at_cpus_alone() -> None:
    spec = of_kind(render(K8S / "overlays/gpu"), "HorizontalPodAutoscaler")["spec"]
    assert [one["type"] for one in spec["metrics"]] == ["Pods", "Resource"]


def test_every_core_has_a_worker_where_models_run_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer workers than cores, the event loops could be busy while the pod's CPUs seem half idle."""
    for manifests in service_manifests():
        settings = settings_of(manifests, monkeypatch)
        if settings.device == "cpu":
            assert settings.workers == int(container_of(manifests)["resources"]["limits"]["cpu"])


def test_the_documented_overlay_scales_on_the_saturation_of_its_namespace(tmp_path: Path) -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    (example,) = re.findall(r"```yaml\n(apiVersion: kustomize[^`]*namespace: images\n.*?)```", page, re.DOTALL)
    (tmp_path / "convoy").symlink_to(ROOT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(example)
    scaled = of_kind(render((tmp_path / "mine").resolve()), "ScaledObject")
    queries = [one["metadata"]["query"] for one in scaled["spec"]["triggers"] if one["type"] == "prometheus"]
    assert queries == [f'sum({SATURATION}{{namespace="images"}})']
    assert scaled["metadata"]["namespace"] == "images"


@pytest.mark.parametrize(
    ("overlay", "components", "kind"),
    [
        ("cpu", ("kserve",), "HorizontalPodAutoscaler"),
        ("gpu", ("kserve",), "HorizontalPodAutoscaler"),
        ("cpu", ("monitoring", "custom-metrics", "kserve"), "HorizontalPodAutoscaler"),
        ("gpu", ("monitoring", "keda", "kserve"), "ScaledObject"),
    ],
)
def test_with_kserve_the_autoscaler_is_the_same(overlay: str, components: tuple[str, ...], kind: str) -> None:
    """KServe's own autoscaler would look at CPUs only. KServe names its Deployment after the InferenceService."""
    *others, _ = components
    plain = of_kind(render(K8S / "overlays" / overlay, *others), kind)["spec"]
    manifests = render(K8S / "overlays" / overlay, *components)
    scaled = of_kind(manifests, kind)["spec"]
    assert plain["scaleTargetRef"]["name"] == "convoy"
    assert scaled == plain | {"scaleTargetRef": plain["scaleTargetRef"] | {"name": "convoy-predictor"}}
    service = of_kind(manifests, "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    assert "scaleMetric" not in service["spec"]["predictor"]


def test_the_rules_select_the_pods_of_kserve_too() -> None:
    """KServe copies the label to its Service, which it names `convoy-predictor`, and requires the container's name."""
    manifests = render(K8S / "overlays/cpu", "monitoring", "kserve")
    monitor, service = of_kind(manifests, "ServiceMonitor"), of_kind(manifests, "InferenceService")
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "convoy"
    containers = {selector for query in _queries(K8S / "monitoring/rules.yml") for selector in CONTAINER.findall(query)}
    assert containers == {'=~"convoy|kserve-container"'}
    assert container_of(manifests)["name"] == "kserve-container"


def test_kserve_s_gateway_is_admitted() -> None:
    policy = policies(render(K8S / "overlays/cpu", "kserve"))["convoy-gateway"]
    ((selector,),) = [rule["from"] for rule in policy["ingress"]]
    (expression,) = selector["namespaceSelector"]["matchExpressions"]
    assert expression["key"] == "kubernetes.io/metadata.name"
    assert {"istio-system", "envoy-gateway-system"} <= set(expression["values"])
    service = of_kind(render(K8S / "overlays/cpu", "kserve"), "InferenceService")
    assert policy["podSelector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


@pytest.mark.parametrize("file", ["rules.yml", "dashboard.json"])
def test_alerts_and_the_dashboard_ask_for_metrics_that_exist(file: str, metrics: set[str]) -> None:
    path = K8S / "monitoring" / file
    names = {name for query in _queries(path) for name in METRIC.findall(query)}
    assert names
    assert names <= metrics


def test_the_operator_and_grafana_are_given_the_alerts_and_the_dashboard() -> None:
    manifests = render(K8S / "overlays/cpu", "monitoring")
    rules = yaml.safe_load((K8S / "monitoring/rules.yml").read_text())
    assert of_kind(manifests, "PrometheusRule")["spec"] == rules
    label = of_kind(manifests, "ServiceMonitor")["spec"]["jobLabel"]
    job = of_kind(manifests, "Service")["metadata"]["labels"][label]
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    selectors = [
        selector for expr in expressions for selector in re.findall(r"\b(?:convoy_\w+|up)(?:\{(.*?)\})?", expr)
    ]
    assert [selector for selector in selectors if f'job="{job}"' not in selector] == []
    assert len(selectors) > len(shipped_config.alerts())
    (dashboard_config,) = [
        one for one in manifests if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    assert dashboard_config["data"] == {"convoy.json": (K8S / "monitoring/dashboard.json").read_text()}


def _queries(path: Path) -> list[str]:
    if path.suffix == ".json":
        return QUERIES.findall(json.dumps(json.loads(path.read_text())))
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_every_pod_keeps_to_the_restricted_standard() -> None:
    for name, manifests in all_rendered():
        for pod in (pod for manifest in manifests if (pod := pod_of(manifest))):
            assert pod["securityContext"]["runAsNonRoot"], name
            assert pod["securityContext"]["runAsUser"] == USER
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            assert pod["enableServiceLinks"] is False, "CONVOY_PORT=tcp://... would end the service"
            (container,) = pod["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, "large uploads need it"
            assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_the_images_are_those_that_the_dockerfiles_make() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    dockerfiles = {"convoy": ROOT / "service/Dockerfile", "convoy-train": ROOT / "training/Dockerfile"}
    for _, manifests in all_rendered():
        for pod in (pod for manifest in manifests if (pod := pod_of(manifest))):
            name, _, tag = pod["containers"][0]["image"].partition(":")
            assert tag in {version[1], f"{version[1]}-gpu"}
            assert f"USER {USER}:{USER}" in dockerfiles[name].read_text()


def test_the_training_image_has_every_backend_that_a_job_names() -> None:
    listed = (ROOT / "requirements/train.txt").read_text()
    backends = {environment(render(K8S / "jobs" / job)).get("KERAS_BACKEND", "tensorflow") for job in JOBS[1:]}
    assert backends == {"tensorflow", "jax"}
    assert [name for name in backends if not re.search(rf"^{name}==", listed, re.MULTILINE)] == []


@pytest.mark.parametrize("job", [job for job in JOBS if job not in {"storage", "shell"}])
def test_the_commands_of_jobs_are_valid(job: str) -> None:
    manifests = render(K8S / "jobs" / job)
    container = container_of(manifests)
    program, name, *words = container["command"]
    group = {"convoy": convoy, "convoy-train": convoy_train}[program]
    command = group.commands[name]
    parsed = command.make_context(name, words)
    assert parsed.params
    with pytest.raises(click.UsageError):
        command.make_context(name, [*words, "--no-such-option"])


def test_jobs_assign_a_part_to_every_pod() -> None:
    batch, distributed_job = render(K8S / "jobs/batch"), render(K8S / "jobs/distributed")
    spec = of_kind(batch, "Job")["spec"]
    assert environment(batch)["JOB_COMPLETIONS"] == str(spec["completions"])
    variables, spec = environment(distributed_job), of_kind(distributed_job, "Job")["spec"]
    assert variables["CONVOY_NUM_PROCESSES"] == str(spec["completions"]) == str(spec["parallelism"])
    service, pod = of_kind(distributed_job, "Service"), spec["template"]["spec"]
    name = of_kind(distributed_job, "Job")["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"job-name": name}
    host, _, port = variables["CONVOY_COORDINATOR"].partition(":")
    assert host == f"{name}-0.{pod['subdomain']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert (
        int(port) == service["spec"]["ports"][0]["port"] == container_of(distributed_job)["ports"][0]["containerPort"]
    )


def test_the_sweep_has_a_pod_for_each_combination() -> None:
    sweep = render(K8S / "jobs/sweep")
    listed = CliRunner().invoke(convoy_train, [*container_of(sweep)["command"][1:], "--list"])
    assert listed.exit_code == 0, listed.output
    assert of_kind(sweep, "Job")["spec"]["completions"] == len(listed.output.splitlines())


def test_a_lost_pod_is_retried_and_a_failed_one_is_not() -> None:
    for name in JOBS[1:]:
        (manifest,) = [one for one in render(K8S / "jobs" / name) if one["kind"] in {"Job", "CronJob"}]
        spec = manifest["spec"]["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else manifest["spec"]
        ignored, mistakes, *more = spec["podFailurePolicy"]["rules"]
        assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert mistakes["action"] == "FailJob"
        assert mistakes["onExitCodes"]["values"] == list(FINAL_EXIT_CODES)
        peer_lost_rule = {"containerName": "work", "operator": "In", "values": [PeerLost.exit_code]}
        others = {
            "distributed": {"Ignore": peer_lost_rule},
            "batch": {"FailIndex": {**peer_lost_rule, "values": [EXIT_PARTIAL]}},
        }
        assert {rule["action"]: rule["onExitCodes"] for rule in more} == others.get(name, {})
        assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_a_peer_that_is_never_scheduled_ends_the_distributed_job() -> None:
    """A waiting pod counts as an attempt. Pods that lose each other do not count, but a deadline limits them."""
    spec = of_kind(render(K8S / "jobs/distributed"), "Job")["spec"]
    ignored = [
        rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"][1:] if rule["action"] == "Ignore"
    ]
    assert ignored == [[EXIT_PEER_LOST]]
    assert PeerMissing.exit_code == EXIT_RETRY
    assert spec["backoffLimit"] == 6
    assert spec["activeDeadlineSeconds"] == 7 * 24 * 3600


def test_clients_that_keep_connections_reach_new_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service balances connections. Without a limit, the connections of an old client would never move to new
    pods."""
    for manifests in service_manifests():
        assert settings_of(manifests, monkeypatch).keep_alive_requests > 0


def test_keys_come_from_a_secret_that_every_pod_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes the copy for KServe. A pod that started without the Secret would serve without keys."""
    for components in (("api-keys",), COMPATIBLE_COMPONENTS, ("bucket-models", "api-keys", "kserve")):
        manifests = render(K8S / "overlays/cpu", *components)
        settings, container = settings_of(manifests, monkeypatch), container_of(manifests)
        assert settings.keys_file is not None
        (pod,) = [pod for manifest in manifests if (pod := pod_of(manifest))]
        (volume,) = [one for one in pod["volumes"] if "secret" in one]
        assert volume["secret"]["secretName"] == "convoy-keys"
        assert not volume["secret"].get("optional")
        assert [item["path"] for item in volume["secret"]["items"]] == [settings.keys_file.name]
        assert volume["secret"]["defaultMode"] & 0o777 == 0o440, "the pod's fsGroup reads it, others do not"
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"] == USER
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
        assert Path(mount["mountPath"]) == settings.keys_file.parent
        assert "subPath" not in mount, "it would not follow changes of the Secret"


def test_prometheus_has_a_key_of_its_own_where_the_service_requires_keys() -> None:
    (endpoint,) = of_kind(render(K8S / "overlays/cpu", "monitoring", "api-keys"), "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "convoy-metrics-key", "key": "key"},
    }
    (without,) = of_kind(render(K8S / "overlays/cpu", "monitoring"), "ServiceMonitor")["spec"]["endpoints"]
    assert "authorization" not in without
    assert {key: value for key, value in endpoint.items() if key != "authorization"} == without


def test_no_volume_is_mounted_inside_a_read_only_one() -> None:
    """Otherwise the runtime could not create the folder for the inner mount."""
    for name, manifests in all_rendered():
        for pod in (pod for manifest in manifests if (pod := pod_of(manifest))):
            mounts = pod["containers"][0]["volumeMounts"]
            for outer in (one for one in mounts if one.get("readOnly")):
                assert not [one for one in mounts if Path(outer["mountPath"]) in Path(one["mountPath"]).parents], name


def test_a_nightly_job_ends_before_the_next_night() -> None:
    """While one run is in progress, the next one is skipped."""
    spec = of_kind(render(K8S / "jobs/nightly"), "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] + spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_an_update_starts_a_pod_before_it_ends_one(overlay: str) -> None:
    spec = of_kind(render(K8S / "overlays" / overlay), "Deployment")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_an_interrupted_part_of_the_batch_job_is_tried_again() -> None:
    """A shard resumes unless a rule of the Job fails it permanently."""
    spec = of_kind(render(K8S / "jobs/batch"), "Job")["spec"]
    final = [rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert final, "some exit codes fail a part permanently"
    assert EXIT_RETRY not in [value for values in final for value in values]
    assert spec["backoffLimitPerIndex"] >= 1
