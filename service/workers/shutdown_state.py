"""How far a stop has come: one small object that the server writes and the HTTP side reads."""

from dataclasses import dataclass


@dataclass(slots=True)
class Lifecycle:
    """First `stopping`: told to stop, not ready any more. Then `closing`: nobody can connect any more, and every
    answer ends its connection. A client that were sent away earlier would come back by a new connection, and lose it.
    `gave_up` at the end: something did not come to an end in its time.
    """

    stopping: bool = False
    closing: bool = False
    gave_up: bool = False
