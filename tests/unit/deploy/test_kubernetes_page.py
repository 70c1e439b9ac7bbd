"""docs/kubernetes.md: its overlays render, and its commands name files, objects and images that exist."""

import itertools
import re
import shlex
from pathlib import Path

import click
import yaml

from service.cli import cli as convoy
from tests.support.kubernetes_manifests import (
    K8S,
    ROOT,
    Manifest,
    all_kustomizations,
    container_of,
    environment,
    of_kind,
    pod_of,
    render,
)

PAGE = (ROOT / "docs/kubernetes.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_documented_overlays_render(tmp_path: Path) -> None:
    """Returns the documented custom installation, with the additions for the canary, in a folder next to Convoy's."""
    yaml_blocks = [yaml.safe_load(block) for block in blocks("yaml")]
    own, canary = (next(block for block in yaml_blocks if key in block) for key in ("namespace", "patches"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "convoy").symlink_to(ROOT)
    together = own | canary | {"configMapGenerator": own["configMapGenerator"] + canary["configMapGenerator"]}
    (tmp_path / "mine/kustomization.yaml").write_text(yaml.safe_dump(together))
    (tmp_path / "mine/state.json").write_text(blocks("json")[0])
    manifests = render((tmp_path / "mine").resolve())
    container = container_of(manifests)
    assert {one["metadata"]["namespace"] for one in manifests} == {"images"}
    assert container["image"] == "registry.example.com/convoy:0.1.0"
    variables = environment(manifests)
    assert variables["CONVOY_MAX_DELAY_MS"] == "2"
    (file,) = [one for one in manifests if one["metadata"]["name"] == "convoy-versions"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "versions"]
    assert variables["CONVOY_STATE"] == f"{mount['mountPath']}/{next(iter(file['data']))}"


def commands() -> list[list[str]]:
    """Returns the commands in console blocks and kubectl commands in the text, split into words."""
    lines = [line[2:] for block in blocks("console") for line in block.splitlines()]
    commands = []
    for line in [*lines, *re.findall(r"`(kubectl .+?)`", PAGE)]:
        words = shlex.split(line, comments=True)
        commands += [list(part) for is_and, part in itertools.groupby(words, "&&".__eq__) if not is_and]
    return commands


def test_the_commands_name_existing_files_objects_and_images() -> None:
    rendered = [one for _, manifests in all_kustomizations() for one in manifests]
    objects = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in rendered}
    images = {pod["containers"][0]["image"] for one in rendered if (pod := pod_of(one))}
    programs = set()
    for program, *words in commands():
        programs.add(" ".join([program, *words[:1]]))
        options = dict(itertools.pairwise(words))
        if program == "docker":
            assert f" AS {options['--target']}\n" in (ROOT / options["-f"]).read_text()
            assert options["-t"] in images
        elif program == "kind" and words[0] == "load":
            assert words[-1] in images
        elif program == "kubectl" and "-k" in options:
            assert (ROOT / options["-k"] / "kustomization.yaml").is_file()
        elif program == "kubectl" and words[:3] != ["create", "secret", "generic"] and words[0] != "wait":
            assert objects & set(words), words
    assert programs >= {"docker build", "kind load", "kubectl apply", "kubectl exec", "kubectl rollout", "kubectl logs"}


def secrets_of_keys() -> dict[str, set[str]]:
    """Returns the Secrets that the component `api-keys` reads, with their keys."""
    manifests: tuple[Manifest, ...] = render(K8S / "overlays/cpu", "monitoring", "api-keys")
    (pod,) = [pod for manifest in manifests if (pod := pod_of(manifest))]
    (volume,) = [one["secret"] for one in pod["volumes"] if "secret" in one]
    (endpoint,) = of_kind(manifests, "ServiceMonitor")["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    return {
        volume["secretName"]: {item["key"] for item in volume["items"]},
        credentials["name"]: {credentials["key"]},
    }


def test_the_secrets_that_are_created_are_those_that_are_read() -> None:
    created: dict[str, set[str]] = {}
    for program, *words in commands():
        if (program, *words[:3]) == ("kubectl", "create", "secret", "generic"):
            (source,) = [word for word in words if word.startswith("--from-")]
            created.setdefault(words[3], set()).add(source.split("=")[1])
    assert created == secrets_of_keys()


def test_commands_in_pods_are_commands_of_convoy() -> None:
    inside = [words[words.index("--") + 1 :] for words in commands() if "--" in words]
    convoy_commands = [words[1:] for words in inside if words[0] == "convoy"]
    assert len(convoy_commands) > 1
    for words in convoy_commands:
        assert parsed(convoy, list(itertools.takewhile("<".__ne__, words)))


def parsed(group: click.Group, words: list[str]) -> dict[str, object]:
    """Parses the words of a command of the group, or of a nested group, with click."""
    command = group.commands[words[0]]
    if isinstance(command, click.Group):
        return parsed(command, words[1:])
    return command.make_context(words[0], words[1:]).params
