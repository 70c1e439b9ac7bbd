"""Limits the bytes of decoded images that this process holds at once, for all its models.

Runs only on the event loop's thread, so there are no locks.
"""

from service.errors import QueueFull, TooManyImages

RETRY_AFTER_S = 1.0
UNLIMITED_BYTES = 2**62


class InputBudget:
    """Limits the inputs of all models together to `limit_bytes`. The batchers add the bytes that they hold to
    `used_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self.limit_bytes = limit_bytes

    def check(self, count: int, input_bytes: int) -> None:
        """Raises QueueFull if `count` inputs of `input_bytes` do not fit now, and TooManyImages if they never will.

        A single input that is larger than the whole budget is accepted while no other input is held.
        """
        size_bytes = count * input_bytes
        if self.used_bytes + size_bytes <= self.limit_bytes:
            return
        if count > 1 and size_bytes > self.limit_bytes:
            most = max(1, self.limit_bytes // input_bytes)
            raise TooManyImages(
                f"The request has {count} images of {input_bytes} bytes each as the model's input; at most {most} fit "
                "into the memory for images."
            )
        if self.used_bytes:
            raise QueueFull("The images of other requests fill the memory for images.", RETRY_AFTER_S)

    def check_rest(self, input_bytes: int) -> None:
        """Raises QueueFull if not even one input of `input_bytes` fits now."""
        if self.used_bytes + input_bytes > self.limit_bytes:
            self.check(1, input_bytes)
