"""The error for inconsistent processes names their differences."""

import pytest

from training.errors import TrainingError
from training.fit.distributed.consistency import check_consistent, digest


def test_a_missing_value_is_a_difference_and_long_lists_are_shortened() -> None:
    with pytest.raises(TrainingError, match="b is 2 in process 0, missing in process 1"):
        check_consistent([{"a": "1", "b": "2"}, {"a": "1"}])
    with pytest.raises(TrainingError, match=r"a is 1 in process 0, 2 in process 1; .*; and 2 more\.$"):
        check_consistent([dict.fromkeys("abcde", "1"), dict.fromkeys("abcde", "2")])


def test_a_digest_knows_where_its_parts_begin() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest(b"ab", b"c") == digest(b"ab", b"c")
