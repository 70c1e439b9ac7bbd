"""Memory that nothing uses any more goes back to the system."""

import ctypes


def give_back() -> bool:
    """Whether anything could be given back: only glibc keeps what was freed, and has a way to ask for it.

    Every model that came and went would leave some megabytes in one of its arenas, until each arena had its own.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
