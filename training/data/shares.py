"""Which part of every batch a process makes, where several processes train one network."""

from dataclasses import dataclass

from training.errors import TrainingError


@dataclass(frozen=True)
class BatchShard:
    """Process number `process` of `processes`, which have `devices` together; batches are spread evenly over these.

    What does not divide is left out at the end of an epoch: up to `devices` - 1 images, other ones each epoch.
    """

    process: int = 0
    processes: int = 1
    devices: int = 1

    def check(self, batch_size: int, **images: int) -> None:
        """Raises TrainingError for a batch, and for sets of `images`, that the devices cannot share."""
        if batch_size % self.devices:
            raise TrainingError(
                f"batch_size is {batch_size}, for all {self.devices} devices together: set a multiple of "
                f"{self.devices}, for example --set batch_size={-(-batch_size // self.devices) * self.devices}."
            )
        for kind, count in images.items():
            if 0 < count < self.devices:
                raise TrainingError(f"{count} {kind} images are too few for {self.devices} devices.")

    def usable(self, count: int) -> int:
        """How many of so many images the devices can share evenly."""
        return count - count % self.devices

    def rows(self, count: int) -> slice:
        """Which of the `count` images of a batch are this process's."""
        part = count // self.processes
        return slice(self.process * part, (self.process + 1) * part)


WHOLE = BatchShard()
"""Of a process that trains alone, on one device."""
