"""Runs one target under atheris: `python -m tests.reliability.fuzz.harness TARGET CORPUS [libFuzzer's options]`.

The coverage of the Python bytecode of `service` and Pillow guides the fuzzer. C code is not instrumented.
"""

import sys

import atheris

with atheris.instrument_imports(include=["service", "PIL"], enable_loader_override=False):
    from tests.reliability.fuzz.targets import TARGETS


def main() -> None:
    program, target, *options = sys.argv
    atheris.Setup([program, *options], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
