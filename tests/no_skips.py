"""A pytest plugin that fails the run if a test is skipped for a reason that is not allowed.

It is active with PYTEST_NO_SKIPS=1, as in CI, so that a missing program does not silently skip tests.
"""

import os
import re
from collections import Counter

import pytest

ALLOWED_REASONS = (
    r"CONVOY_DATA is not set: no real data",
    r"LitServe is not set up",
    r"\S+ is not at hand",  # schemas of Kubernetes operators, which are not in this repository
    r"kserve is not installed",  # it needs an older psutil and protobuf than training
    r"kubectl is not installed",  # Debian has no current version
    r"this onnxruntime has CUDA",
    r"the OpenVINO plugin has no device here",  # the plugin supports only Intel processors
    r"skopeo is not installed",
)


class NoSkips:
    """Collects the skipped tests of a run by place and reason."""

    def __init__(self) -> None:
        self.forbidden: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._check(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._check(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.forbidden and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.forbidden:
            terminalreporter.section("skips that are not allowed")
            for place_and_reason, count in sorted(self.forbidden.items()):
                terminalreporter.line(f"[{count}] {place_and_reason}")
            terminalreporter.line("Install what is missing, or allow the reason in tests/no_skips.py.")

    def _check(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        assert isinstance(report.longrepr, tuple)
        path, line, text = report.longrepr
        reason = text.removeprefix("Skipped: ")
        if not any(re.fullmatch(allowed, reason) for allowed in ALLOWED_REASONS):
            self.forbidden[f"{path}:{line}: {reason}"] += 1


def register(config: pytest.Config) -> None:
    """Registers the plugin if the variable is set, except in workers of xdist, which report to the main process."""
    if os.environ.get("PYTEST_NO_SKIPS") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips())
