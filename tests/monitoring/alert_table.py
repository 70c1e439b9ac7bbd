"""Builds the table of alerts in docs/operations.md: conditions, and the recorded outcomes of the checks."""

from typing import Any

from tests.monitoring import results

CONDITIONS = {
    "ConvoyDown": "an instance cannot be scraped for 1 min; a new one for 16 min",
    "ConvoyGone": "there has been no instance for 1 min",
    "ConvoyNotReady": "an instance is not ready for 5 min",
    "ConvoyWorkerUnresponsive": "an event loop was blocked for 5 s within the last 2 min",
    "ConvoyWorkerRestarting": "more than 2 workers were replaced in 15 min",
    "ConvoyRestarting": "the service started more than twice in 15 min",
    "ConvoyModelHangs": "a run has not returned within the request timeout, for 1 min",
    "ConvoyQueueFilling": "a tenth of the requests has waited for more than 5 s, for 5 min, at least 10 requests",
    "ConvoyBackgroundTaskFailing": "more than 2 failures of a background task in 10 min",
    "ConvoyKeysInvalid": "the file of API keys is invalid for 1 min",
    "ConvoyVersionLags": "a version is not loaded on all instances for 15 min",
    "ConvoyOverloaded": "more than 1% rejected over 2 and 10 min, at least 10 requests",
    "ConvoyFailing": "more than 1.44% failed over 5 min and 1 h, at least 10 requests",
    "ConvoyFailingSlowly": "more than 0.6% failed over 30 min and 6 h, at least 10 requests",
    "ConvoySlow": "more than 6% of the single images took more than 1 s, over 5 min and 1 h, at least 10 requests",
    "ConvoyVersionBroken": "a version on disk cannot be loaded for 1 min",
    "ConvoyBucketNotSynced": "no complete synchronization with the bucket for 10 min",
    "ConvoyBucketVersionMissing": "a version in the bucket cannot be downloaded for 10 min",
    "ConvoyMemoryNearLimit": "more than 90% of a pod's memory limit for 5 min",
    "ConvoyJobFailed": "a Job has failed",
    "ConvoyNightlyMissed": "no nightly training has succeeded for 49 h, unless it is suspended",
}


def alerts_table() -> str:
    """Returns the table, and a description of the healthy traffic."""
    recorded = results.read()
    caused, healthy = recorded["caused"], recorded.get("healthy")
    rows = [
        f"| `{name}` | {condition} | {_cause(caused['alerts'][name])} | {_false_alarms(healthy, name)} |"
        for name, condition in CONDITIONS.items()
    ]
    head = ["| alert | condition | triggered by, fired after | false alarms |", "|---|---|---|---|"]
    traffic = healthy and (
        f" False alarms are counted over {healthy['minutes']:.0f} minutes of healthy traffic on {healthy['date']}: "
        f"{_traffic(healthy['answers'])}."
    )
    return "\n".join([*head, *rows, "", f"These alerts were triggered on {caused['date']}.{traffic or ''}"])


def _cause(outcome: dict[str, Any]) -> str:
    seconds = outcome["fired_after_s"]
    return f"{outcome['cause']}: " + ("**did not fire**" if seconds is None else f"{seconds} s")


def _false_alarms(healthy: dict[str, Any] | None, alert: str) -> str:
    if healthy is None:
        return "not counted"
    return "**fired**" if alert in healthy["fired"] else "none"


def _traffic(answers: dict[str, dict[str, int]]) -> str:
    return "; ".join(
        f"{kind} ({', '.join(f'{status}: {count:,}' for status, count in by_status.items())})"
        for kind, by_status in answers.items()
    )
