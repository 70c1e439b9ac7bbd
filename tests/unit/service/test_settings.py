"""Every setting has a description and bounds, is read from its variable, and does not change at runtime."""

import json
import os
from typing import Any, get_args

import pytest
from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings, unknown_variables

FIELDS = Settings.model_fields
FORMATTED_VALUES = {
    "device": "cpu",
    "root_path": "/elsewhere",
    "trusted_proxies": "10.0.0.0/8",
    "allowed_hosts": "api.example.com",
    "drain_timeout_s": "7.5",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def bound(field: FieldInfo, kind: type[Ge] | type[Gt] | type[Le], name: str) -> Any:
    return next((getattr(limit, name) for limit in field.metadata if isinstance(limit, kind)), None)


def another_value(name: str) -> Any:
    """Returns a valid value that is not the default."""
    field = FIELDS[name]
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str) and choice != field.default]
    if choices:
        return choices[0]
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, int | float):
        return field.default + 1 if bound(field, Le, "le") != field.default else field.default - 1
    return FORMATTED_VALUES.get(name, "elsewhere")


def test_settings_have_defaults_that_serve_on_this_machine_only() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, "models")


@pytest.mark.parametrize(
    ("settings", "drain_s"),
    [
        ({}, 33.0),
        ({"request_timeout_ms": 2000}, 5.0),
        ({"request_timeout_ms": 2000, "drain_timeout_s": 1.5}, 1.5),
        ({"drain_timeout_s": 0}, 0.0),
    ],
)
def test_the_drain_timeout_follows_the_request_timeout(settings: dict[str, Any], drain_s: float) -> None:
    assert Settings(**settings).effective_drain_timeout_s == drain_s


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_has_a_description(name: str) -> None:
    about = FIELDS[name].description
    assert about
    assert about.endswith(".")
    assert "\n" not in about


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_comes_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = another_value(name)
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value if isinstance(value, str) else json.dumps(value))
    found = Settings().model_dump()
    assert str(found.pop(name)) == str(value)
    assert found == {other: field.default for other, field in FIELDS.items() if other != name}


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_overrides_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", "not even legal")
    assert getattr(Settings(**{name: FIELDS[name].default}), name) == FIELDS[name].default


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if type(field.default) in (int, float)])
def test_a_number_has_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = FIELDS[name]
    minimum, exclusive_minimum, maximum = bound(field, Ge, "ge"), bound(field, Gt, "gt"), bound(field, Le, "le")
    assert minimum is not None or exclusive_minimum is not None, "every number of the service has a minimum"
    invalid = [minimum - 1 if minimum is not None else exclusive_minimum, "many", ""]
    for value in invalid + ([maximum + 1] if maximum is not None else []):
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(value))
        with pytest.raises(ValidationError) as raised:
            Settings()
        assert raised.value.errors()[0]["loc"] == (name,)


@pytest.mark.parametrize("name", [name for name in FIELDS if name.endswith(("_s", "_ms"))])
def test_a_time_is_finite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("nan", "inf", "-inf"):
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
        with pytest.raises(ValidationError):
            Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 9000  # type: ignore[misc]


def test_a_setting_that_does_not_exist_is_rejected() -> None:
    with pytest.raises(ValidationError, match="prot"):
        Settings(prot=9000)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [
        ("CONVOY_PROT", "CONVOY_PORT"),
        ("CONVOY_MODEL", "CONVOY_MODELS"),
        ("CONVOY_MAX_BATCH", "CONVOY_MAX_BATCH_SIZE"),
        ("CONVOY_MAX_DELAY", "CONVOY_MAX_DELAY_MS"),
        ("CONVOY_LOGLEVEL", "CONVOY_LOG_LEVEL"),
        ("convoy_hots", "CONVOY_HOST"),
    ],
)
def test_a_misspelled_variable_gets_a_suggestion(variable: str, suggestion: str) -> None:
    assert unknown_variables({variable: "1", "PATH": "/bin", "CONVOY_PORT": "1"}) == {variable: suggestion}


def test_an_unknown_variable_is_named_without_a_suggestion_far_from_every_setting() -> None:
    unknown = unknown_variables({"CONVOY_VERBOSE": "1", "CONVOY_REPLICA_COUNT": "2", "convoy_wokers": "3"})
    assert unknown == {"CONVOY_VERBOSE": None, "CONVOY_REPLICA_COUNT": None, "convoy_wokers": "CONVOY_WORKERS"}


def kubernetes_variables(service: str) -> dict[str, str]:
    """Returns the variables that Kubernetes sets in every pod for a Service with this name and the port `http`."""
    return {
        f"{service}_SERVICE_HOST": "10.0.0.11",
        f"{service}_SERVICE_PORT": "8000",
        f"{service}_SERVICE_PORT_HTTP": "8000",
        f"{service}_PORT": "tcp://10.0.0.11:8000",
        f"{service}_PORT_8000_TCP": "tcp://10.0.0.11:8000",
        f"{service}_PORT_8000_TCP_PROTO": "tcp",
        f"{service}_PORT_8000_TCP_PORT": "8000",
        f"{service}_PORT_8000_TCP_ADDR": "10.0.0.11",
    }


@pytest.mark.parametrize("service", ["CONVOY", "CONVOY_CANARY", "CONVOY_V2_GPU"])
def test_variables_of_kubernetes_are_ignored(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables(kubernetes_variables(service)) == {}
    for name, value in kubernetes_variables(service).items():
        monkeypatch.setenv(name, value)
    assert Settings() == Settings(port=8000)


def test_an_invalid_port_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_PORT", "http://10.0.0.11:8000")
    with pytest.raises(ValidationError):
        Settings()


def test_variables_of_training_and_of_others_are_left_alone() -> None:
    assert unknown_variables(dict.fromkeys(["CONVOY_DATA", "PORT", "CONVEYOR_PORT", "convoy_port"], "1")) == {}


def test_every_setting_is_spelt_rightly() -> None:
    assert unknown_variables({f"{PREFIX}{name.upper()}": "1" for name in FIELDS}) == {}


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        ({}, [None]),
        ({"device": "cuda", "workers": 2}, [None, None]),
        ({"device": "cuda:1"}, [1]),
        ({"device": "cuda:2,0"}, [2, 0]),
        ({"device": "cuda:0,1", "workers": 4}, [0, 1, 0, 1]),
        ({"device": "cuda:0,1", "workers": "2"}, [0, 1]),
    ],
)
def test_each_gpu_has_equally_many_workers_by_default_one(settings: dict[str, Any], gpus: list[int | None]) -> None:
    found = Settings(**settings)
    assert [found.gpu_of(worker_id) for worker_id in range(found.workers)] == gpus


@pytest.mark.parametrize(
    ("device", "workers", "problem"),
    [
        ("cuda:", 1, "must be auto, cpu, cuda"),
        ("cuda:0,", 1, "must be auto, cpu, cuda"),
        ("cuda:-1", 1, "must be auto, cpu, cuda"),
        ("gpu", 1, "must be auto, cpu, cuda"),
        ("cuda:1,1", 2, "names a GPU twice"),
        ("cuda:0,1", 3, "2 GPUs need a multiple of 2 workers, not 3"),
    ],
)
def test_a_device_that_cannot_be_shared_out_is_rejected(device: str, workers: int, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as raised:
        Settings(device=device, workers=workers)
    assert raised.value.errors()[0]["loc"] == ("device",)


@pytest.mark.parametrize(
    "providers", ["openvino,cpu", "cpu, OpenVINO", "OpenVINOExecutionProvider,cpu", "cuda,openvino"]
)
def test_openvino_is_combined_with_no_other_provider(providers: str) -> None:
    with pytest.raises(ValidationError, match="name only openvino, or leave it empty") as raised:
        Settings(providers=providers)
    assert raised.value.errors()[0]["loc"] == ("providers",)


@pytest.mark.parametrize("providers", ["", "openvino", "OpenVINO,", "tensorrt,cuda", "cuda,cpu"])
def test_providers_that_can_share_a_graph_are_allowed(providers: str) -> None:
    assert Settings(providers=providers).providers == providers


@pytest.mark.parametrize(("host", "address"), [("[::1]", "::1"), ("::1", "::1"), ("0.0.0.0", "0.0.0.0")])
def test_an_ipv6_address_may_be_in_brackets(host: str, address: str) -> None:
    assert Settings(host=host).host == address


@pytest.mark.parametrize("name", ["api.example.com:8000", "https://api.example.com", "*", "*example.com", "a.*.com"])
def test_an_allowed_host_is_a_name_without_a_port(name: str) -> None:
    with pytest.raises(ValidationError, match="must be a name without a port") as raised:
        Settings(allowed_hosts=f"*.example.com, localhost, {name}")
    assert raised.value.errors()[0]["loc"] == ("allowed_hosts",)
