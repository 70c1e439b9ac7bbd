"""The bytes of decoded images that this process holds at once, for all its models.

Runs on the event loop's thread only, so there are no locks.
"""

from service.errors import QueueFull, TooManyImages

RETRY_AFTER_S = 1.0
UNLIMITED_BYTES = 2**62


class InputBudget:
    """Bounds the inputs of all models to `limit_bytes` together; its users count what they hold in `used_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self.limit_bytes = limit_bytes

    def check(self, count: int, input_bytes: int) -> None:
        """Raises QueueFull if `count` inputs of `input_bytes` do not fit now, TooManyImages if they never will.

        A single input that is larger than the whole budget is accepted while there is no other.
        """
        size_bytes = count * input_bytes
        if self.used_bytes + size_bytes <= self.limit_bytes:
            return
        if count > 1 and size_bytes > self.limit_bytes:
            most = max(1, self.limit_bytes // input_bytes)
            raise TooManyImages(
                f"The request holds {count} images of {input_bytes} bytes each as the model's input; "
                f"at most {most} fit into the memory for them."
            )
        if self.used_bytes:
            raise QueueFull("The images of other requests fill the memory for images.", RETRY_AFTER_S)

    def check_rest(self, input_bytes: int) -> None:
        """Raises QueueFull if not even one input of `input_bytes` fits now."""
        if self.used_bytes + input_bytes > self.limit_bytes:
            self.check(1, input_bytes)
