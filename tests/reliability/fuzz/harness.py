"""One target under atheris: `python -m tests.reliability.fuzz.harness TARGET CORPUS [libFuzzer's options]`.

Guided by the coverage of Python's bytecode, of service and Pillow; their C code is run, not looked into.
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
