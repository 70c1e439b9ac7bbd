"""Where the models come from, as the settings say: a folder, or a bucket's mirror in one."""

from pathlib import Path

from service.model_store.mirror import BucketMirror, default_cache_root
from service.model_store.object_store import is_url, open_bucket
from service.settings import Settings


def open_mirror(settings: Settings) -> BucketMirror | None:
    """The mirror of the bucket that CONVOY_MODELS names; None where it names a folder. Raises CannotOpenBucket."""
    if not is_url(settings.models):
        return None
    return BucketMirror(open_bucket(settings.models), settings.bucket_cache or default_cache_root())


def local_models(settings: Settings) -> Path:
    """The folder to read models from, a bucket's fetched first. Raises CannotOpenBucket or BucketUnreachable."""
    mirror = open_mirror(settings)
    return Path(settings.models) if mirror is None else mirror.sync()
