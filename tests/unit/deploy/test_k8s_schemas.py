"""Every manifest renders and passes strict schemas of Kubernetes and, if available, of operators."""

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.kubernetes_manifests import (
    COMBINATIONS,
    COMPATIBLE_COMPONENTS,
    JOBS,
    K8S,
    OVERLAYS,
    ROOT,
    Manifest,
    all_kustomizations,
    of_kind,
    pod_of,
    render,
)

# The oldest version that supports all features in use (preStop sleep), and the newest available.
VERSIONS = ("1.30", "1.37")
CUSTOM = {"keda.sh", "monitoring.coreos.com", "serving.kserve.io"}
SCHEMAS = ROOT.parent / "shared/crds"


def group(manifest: Manifest) -> str:
    return manifest["apiVersion"].rpartition("/")[0]


def test_every_folder_is_rendered_here() -> None:
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(OVERLAYS)
    assert {path.name for path in (K8S / "components").iterdir()} == {name for names in COMBINATIONS for name in names}
    assert {path.name for path in (K8S / "jobs").iterdir()} == {*JOBS, "common"}


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid_for_kubernetes(version: str) -> None:
    different = {str(manifest): manifest for _, manifests in all_kustomizations() for manifest in manifests}
    for manifest in different.values():
        if group(manifest) not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_would_notice_a_misspelt_field() -> None:
    manifest = dict(render(K8S / "overlays/dev")[0], specc={})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


@pytest.mark.parametrize("file", ["keda.sh_scaledobjects.yaml", "monitoring.coreos.com_servicemonitors.yaml"])
def test_manifests_are_valid_for_operators(file: str) -> None:
    if not (SCHEMAS / file).is_file():
        pytest.skip(f"{file} is not at hand")
    definition = yaml.safe_load((SCHEMAS / file).read_text())
    kind = definition["spec"]["names"]["kind"]
    (manifest,) = [one for one in render(K8S / "overlays/cpu", *COMPATIBLE_COMPONENTS) if one["kind"] == kind]
    versions = {version["name"]: version["schema"]["openAPIV3Schema"] for version in definition["spec"]["versions"]}
    schema = with_closed_schemas(versions[manifest["apiVersion"].rpartition("/")[2]])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "spec": {**manifest["spec"], "speling": 1}}, schema)


def with_closed_schemas(schema: Manifest) -> Manifest:
    """Returns the schema with unknown fields forbidden, because the API server would drop them."""
    schema = {key: with_closed_schemas(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def test_the_kserve_copy_equals_the_pod_of_the_deployment() -> None:
    pod = pod_of(of_kind(render(K8S / "overlays/cpu"), "Deployment"))
    copy = pod_of(of_kind(render(K8S / "overlays/cpu", "kserve"), "InferenceService"))
    assert pod is not None
    assert copy is not None
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
    (container,) = copy["containers"]
    assert container["name"] == "kserve-container"
    copied = {key: value for key, value in copy.items() if key not in own}
    copied["containers"] = [{**container, "name": "convoy"}]
    assert copied == {key: value for key, value in pod.items() if key != "topologySpreadConstraints"}
