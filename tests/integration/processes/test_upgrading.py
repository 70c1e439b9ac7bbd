"""docs/operations.md, "Upgrading": versions of earlier and later formats in one folder."""

import json
from pathlib import Path

from tests.support.model_versions import write_version
from tests.support.service_process import RunningService


def change_manifest(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, **changes}))


def test_a_version_in_a_later_format_waits_while_earlier_ones_are_served(tmp_path: Path) -> None:
    first = write_version(tmp_path, "digits", 1)
    content = json.loads((first / "manifest.json").read_text())
    content.pop("requires")
    (first / "manifest.json").write_text(json.dumps({**content, "format": 1}))
    later = write_version(tmp_path, "digits", 2)
    change_manifest(later, format=99, requires="7.0.0", unknown_field=True)
    with RunningService(tmp_path, scan_interval_s=0.1) as service:
        model = service.client.get("/api/v1/models/digits").json()
        assert [version["version"] for version in model["versions"]] == ["1"]
        index = service.client.post("/v2/repository/index").json()
        (entry,) = [entry for entry in index if entry["version"] == "2"]
        assert "needs Convoy 7.0.0" in entry["reason"]
        change_manifest(later, format=2, requires="0.1.0")
        content = json.loads((later / "manifest.json").read_text())
        content.pop("unknown_field")
        (later / "manifest.json").write_text(json.dumps(content))
        service.wait_until(lambda: service.client.get("/api/v1/models/digits").json()["default_version"] == "2")


def test_a_setting_of_another_version_in_the_environment_is_ignored(tmp_path: Path) -> None:
    write_version(tmp_path, "digits", 1)
    with RunningService(tmp_path, setting_of_a_later_version=1) as service:
        line = service.wait_for_line(event="unknown setting")
        assert line["variable"] == "CONVOY_SETTING_OF_A_LATER_VERSION"
        assert service.client.get("/health/ready").status_code == 200
