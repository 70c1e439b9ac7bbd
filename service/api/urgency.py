"""How soon an answer is wanted, as the request's headers say."""

import re

from starlette.types import Scope

from service.api.body import header
from service.errors import BadParameter
from service.journey import Journey

TIMEOUT = b"x-request-timeout-ms"
PRIORITY = b"priority"
URGENCY = re.compile(rb"(?:^|[,\s])u=([0-7])\b")
DEFAULT_URGENCY = 3
LONGEST_DIGITS = 9


def apply_headers(scope: Scope, journey: Journey) -> None:
    """Shortens the journey to X-Request-Timeout-Ms, and sends it to the background for a Priority below the default.

    Source of the latter: RFC 9218, urgency `u` from 0, the most urgent, to 7, with 3 the default. Raises BadParameter.
    """
    if timeout := header(scope, TIMEOUT):
        if not timeout.isdigit() or not 0 < len(timeout) <= LONGEST_DIGITS or not int(timeout):
            raise BadParameter("X-Request-Timeout-Ms must be a whole number of milliseconds from 1.")
        journey.shorten(int(timeout) / 1000)
    if priority := header(scope, PRIORITY):
        urgency = URGENCY.search(priority)
        journey.background = urgency is not None and int(urgency[1]) > DEFAULT_URGENCY
