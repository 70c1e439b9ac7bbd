"""How soon an answer is wanted, as the request's headers say."""

import re

from starlette.types import Scope

from service.api.http.body import header
from service.classification.request_context import RequestContext
from service.errors import BadParameter

TIMEOUT = b"x-request-timeout-ms"
PRIORITY = b"priority"
BACKGROUND = re.compile(rb"(?:^|[,\s])u=7\b")
LONGEST_DIGITS = 9


def apply_headers(scope: Scope, context: RequestContext) -> None:
    """Shortens the journey to X-Request-Timeout-Ms, and sends it to the background for a Priority of urgency 7.

    From here on the request's log line and trace know of its journey.

    Source of the latter: RFC 9218, which keeps 7 for background tasks; browsers send the others. Raises BadParameter.
    """
    scope["journey"] = context
    if timeout := header(scope, TIMEOUT):
        if not timeout.isdigit() or not 0 < len(timeout) <= LONGEST_DIGITS or not int(timeout):
            raise BadParameter("X-Request-Timeout-Ms must be a whole number of milliseconds from 1.")
        context.limit_timeout(int(timeout) / 1000)
    context.background = BACKGROUND.search(header(scope, PRIORITY)) is not None
