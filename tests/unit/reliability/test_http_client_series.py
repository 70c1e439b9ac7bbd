"""Series of requests are stored, continued after an interruption, and sent again if the processes were stopped
meanwhile."""

from collections import Counter
from pathlib import Path

from tests.reliability.http_clients.pauses import INTERVAL_S, MIN_PAUSE_S, PauseCounter
from tests.reliability.http_clients.send_early_answered import repeat_if_stopped
from tests.reliability.http_clients.series import Series, SeriesFile, SizeOutcomes, describe_outcomes

SERIES = Series("nginx", "413", "curl", False)
CLOSING = SERIES._replace(is_closing=True)
ARRIVED: SizeOutcomes = {"1 MB": Counter({"413": 3})}
LOST: SizeOutcomes = {"1 MB": Counter({"413": 2, "lost reset": 1})}


class StoppedPauseCounter(PauseCounter):
    """Detects a pause at the first check, and none later."""

    def settle(self) -> int:
        self.count = 1
        return self.count


def test_outcomes_are_kept_for_the_same_conditions_only(tmp_path: Path) -> None:
    file = tmp_path / "outcomes"
    SeriesFile(file, "commit 1").add(SERIES, LOST)
    known = SeriesFile(file, "commit 1")
    known.add(CLOSING, ARRIVED)
    assert SeriesFile(file, "commit 1").outcomes == {SERIES: LOST, CLOSING: ARRIVED}
    assert SeriesFile(file, "commit 2").outcomes == {}


def test_table_counts_all_sizes_and_routes_and_lists_what_is_wrong() -> None:
    other_route = SERIES._replace(route="direct")
    text = describe_outcomes({SERIES: LOST, CLOSING: ARRIVED, other_route: ARRIVED}, ["curl"], ["413"])
    assert "| curl | 8 of 9 |" in text
    assert text.endswith("\n\n- nginx, 413, curl, 1 MB: lost reset (1)")


def test_lost_answers_are_sent_again_only_after_a_pause() -> None:
    answers = [LOST, LOST, ARRIVED]
    assert repeat_if_stopped(lambda: answers.pop(0), SERIES, StoppedPauseCounter()) == LOST
    assert answers == [ARRIVED], "sent again once, and not after the loss without a pause"


def test_an_interval_that_lasts_seconds_longer_is_a_pause() -> None:
    pauses = PauseCounter()
    for elapsed_s in (INTERVAL_S, INTERVAL_S + 0.9 * MIN_PAUSE_S, INTERVAL_S + 1.1 * MIN_PAUSE_S):
        pauses.note(elapsed_s)
    assert pauses.count == 1
