"""Writes the table of networks: `python -m tests.network_table [NAME...] [--timm-python venv/bin/python]`.

Each network runs in its own process, so that a network that runs out of memory affects only its own row. Results are
saved in results.json after each network. Networks in results.json are skipped unless they are named.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.network_table.timm_networks import FAMILIES

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "docs" / "export-and-import.md"
BEGIN, END = "<!-- networks: written by python -m tests.network_table -->", "<!-- /networks -->"
TIMEOUT_S = 3600
TIMM_LABELS = 1000
SCALING = ["--scale", "1/255", "--mean", "0.5", "--std", "0.5"]

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks to run; default: all networks without a result")
    parser.add_argument(
        "--timm-python", help="a Python with torch and timm; runs timm's families instead of Keras Applications"
    )
    options = parser.parse_args()
    results: dict[str, Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = FAMILIES if options.timm_python else keras_names()
    for name in options.names or [name for name in known if name not in results]:
        row = run_timm(name, options.timm_python) if options.timm_python else run_keras(name)
        results[name] = row
        print(markdown_row(name, row), flush=True)
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    write_table(results)


def keras_names() -> list[str]:
    from training.cli.options import import_keras

    import_keras()
    from training.architectures.keras_applications import APPLICATIONS

    return sorted(APPLICATIONS)


def run_keras(name: str) -> Row:
    done = run_process([sys.executable, "-m", "tests.network_table.keras_networks", name])
    if done.returncode == 0:
        return {"kind": "keras", **json.loads(done.stdout.splitlines()[-1])}
    return {"kind": "keras", "error": last_line(done)}


def run_timm(name: str, python: str) -> Row:
    """Exports a network with timm's Python, and imports it as a user would."""
    with TemporaryDirectory() as folder:
        path, labels, models = Path(folder, f"{name}.onnx"), Path(folder, "labels.txt"), Path(folder, "models")
        labels.write_text("".join(f"class {index}\n" for index in range(TIMM_LABELS)))
        script = Path(__file__).with_name("timm_networks.py")
        exported = run_process([python, str(script), name, str(path)])
        if exported.returncode:
            return {"kind": "timm", "error": f"torch: {last_line(exported)}"}
        started_s = time.perf_counter()
        convoy_train = str(Path(sys.executable).with_name("convoy-train"))
        command = [convoy_train, "import", str(path), "--name", "net", "--labels", str(labels)]
        imported = run_process([*command, "--models-dir", str(models), "--like", "timm", *SCALING])
        if imported.returncode:
            return {"kind": "timm", "error": last_line(imported)}
        manifest = json.loads((models / "net" / "1" / "manifest.json").read_text())
        [variant] = manifest["variants"]
        seconds = time.perf_counter() - started_s
        return {
            "kind": "timm",
            "side": manifest["input"]["height"],
            "bytes": variant["bytes"],
            "seconds": seconds,
            **variant["parity"],
        }


def run_process(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"not finished in {TIMEOUT_S} s")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def markdown_row(name: str, row: Row) -> str:
    if "error" in row:
        return f"| {name} | refused: {row['error'][:200]} | | | | | |"
    errors = [f"{row[key]:.1e}" if row.get(key) is not None else "" for key in ("graph_error", "float32_error")]
    return (
        f"| {name} | {row['side']} | {row['bytes'] / 1e6:.1f} | {row['seconds']:.0f} | {errors[0]} | {errors[1]} | "
        f"{row['max_abs_difference']:.1e} |"
    )


def write_table(results: dict[str, Row]) -> None:
    lines = []
    for kind, title in (("keras", "keras.applications"), ("timm", "timm, exported by torch.onnx")):
        rows = [markdown_row(name, row) for name, row in sorted(results.items()) if row["kind"] == kind]
        if rows:
            header = f"| {title} | pixels | MB | seconds | error of the graph | error of float32 | difference |"
            lines += ["", header, "|---|---|---|---|---|---|---|", *rows]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([f"{before}{BEGIN}", *lines, "", f"{END}{after}"]))


if __name__ == "__main__":
    main()
