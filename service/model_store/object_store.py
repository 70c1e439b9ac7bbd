"""The objects under a URL, through fsspec: s3://, gs:// and file://. Knows nothing of models, nor of what is kept.

fsspec and its packages are an extra, imported when a bucket is opened. They read the usual environment of their
clouds: AWS_* with AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from service.errors import ConvoyError

CHUNK_BYTES = 8 * 1024 * 1024
# Keys of the entry that changes when an object is rewritten, the most reliable first: S3, Google, a folder.
TAG_KEYS = ("ETag", "generation", "etag", "mtime")


class CannotOpenBucket(ConvoyError):
    """The URL is none that can be read, or the packages that would read it are missing."""

    code = "cannot_open_bucket"
    hint = "Use s3://bucket/folder, gs://bucket/folder or file:///folder, or the path of a folder."


class BucketUnreachable(ConvoyError):
    """The bucket cannot be read now: network, credentials, or it is not there."""

    code = "bucket_unreachable"
    hint = (
        "Check the URL, the credentials and the network; what was fetched before stays in use, and it is tried again."
    )


class ObjectRefused(ConvoyError):
    """The bucket can be read, and this object in it can not."""

    code = "object_refused"
    hint = "Grant the service's credentials the right to read the object."


class ObjectInfo(NamedTuple):
    """One listed object. `tag` differs when it was written anew; `is_regular_file` is a file, and not a link to one."""

    bytes: int
    tag: str
    is_regular_file: bool = True


class FileSystem(Protocol):
    """What is used of an fsspec file system."""

    def find(self, path: str, detail: bool, **options: Any) -> Mapping[str, Mapping[str, Any]]: ...

    def open(self, path: str, mode: str, **options: Any) -> Any: ...


class _Scheme(NamedTuple):
    package: str
    module: str
    file_system: str
    options: dict[str, Any]
    find_options: dict[str, Any]


S3_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 2}}
SCHEMES = {
    # botocore's own five attempts of a minute each would hold a start up for minutes.
    "s3": _Scheme("s3fs", "s3fs", "S3FileSystem", {"config_kwargs": S3_TIMEOUTS}, {}),
    # gcsfs' default kind asks Google over gRPC what kind of bucket it is, for minutes where gRPC is blocked.
    "gs": _Scheme("gcsfs", "gcsfs.core", "GCSFileSystem", {"requests_timeout": 30}, {}),
    # fsspec passes over folders that it cannot read: they would look deleted.
    "file": _Scheme("fsspec", "fsspec.implementations.local", "LocalFileSystem", {}, {"on_error": "raise"}),
}


class Bucket:
    """All objects under one URL, by their path below it."""

    def __init__(self, url: str, files: FileSystem, root: str, find_options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self._files = files
        self._root = root
        self._find_options = find_options or {}

    def listing(self) -> dict[str, ObjectInfo]:
        """Every object's path below the URL, its size and tag, from one listing. Raises BucketUnreachable."""
        try:
            entries = self._files.find(self._root, detail=True, **self._find_options)
        except Exception as error:  # each cloud's package has its own classes
            raise self._unreachable(error) from error
        prefix = f"{self._root}/"
        return {
            path.removeprefix(prefix): _object_info(info) for path, info in entries.items() if path.startswith(prefix)
        }

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of one object, piece by piece. Raises ObjectRefused or BucketUnreachable."""
        try:
            with self._files.open(f"{self._root}/{path}", "rb", block_size=CHUNK_BYTES, cache_type="none") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except (FileNotFoundError, PermissionError) as error:
            raise ObjectRefused(f"{self.url}/{path} cannot be read: {_reason(error)}.") from error
        except Exception as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> BucketUnreachable:
        return BucketUnreachable(f"{self.url} cannot be read: {_reason(error)}.")


def is_url(models: str) -> bool:
    """Whether that is a URL rather than the path of a folder."""
    return "://" in models


def open_bucket(url: str) -> Bucket:
    """The bucket behind an s3://, gs:// or file:// URL; nothing is asked of it yet. Raises CannotOpenBucket."""
    scheme = SCHEMES[_parse_scheme(url)]
    try:
        file_system_class = getattr(import_module(scheme.module), scheme.file_system)
    except ImportError as error:
        hint = (
            f"Install Convoy with its extra `bucket` (pip install -e '.[bucket]' in its checkout), or {scheme.package}."
        )
        raise CannotOpenBucket(f"The Python package that reads {url} is missing: {_reason(error)}.", hint) from error
    # No caches: a listing must show what is there now.
    files = file_system_class(skip_instance_cache=True, use_listings_cache=False, **scheme.options)
    return Bucket(url.rstrip("/"), files, file_system_class._strip_protocol(url).rstrip("/"), scheme.find_options)


def _parse_scheme(url: str) -> str:
    """The URL's scheme. Raises CannotOpenBucket for a URL that cannot be meant."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise CannotOpenBucket(f"'{parts.scheme}://' cannot be read.")
    if "@" in parts.netloc:
        raise CannotOpenBucket("The bucket's URL holds credentials.", "Give them in the environment, never in the URL.")
    if parts.query or parts.fragment:
        raise CannotOpenBucket(f"{url} holds a '?' or a '#', which the path to a bucket's models may not.")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.strip("/"):
            raise CannotOpenBucket(f"{url} names no folder.", "Use three slashes: file:///srv/models.")
    elif not parts.netloc:
        raise CannotOpenBucket(f"{url} names no bucket.")
    return parts.scheme


def _object_info(info: Mapping[str, Any]) -> ObjectInfo:
    tag = next((str(info[key]) for key in TAG_KEYS if info.get(key)), "")
    is_regular_file = info.get("type", "file") == "file" and not info.get("islink", False)
    return ObjectInfo(int(info["size"] or 0), tag, is_regular_file)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
