"""Lists and reads the objects under a URL (s3://, gs:// or file://) with fsspec. Independent of models and of the
cache.

fsspec and the packages for clouds are an extra, and are imported when a bucket is opened. They read the usual
environment variables: AWS_* with AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from service.errors import ConvoyError

# A read of a chunk fails after CHUNK_TIMEOUT_S, because a server that sends a few bytes now and then never causes a
# timeout of the connection.
CHUNK_BYTES = 4 * 1024 * 1024
CHUNK_TIMEOUT_S = 60
LISTING_TIMEOUT_S = 120
# Keys whose value changes when an object is rewritten: S3, Google.
TAG_KEYS = ("ETag", "generation", "etag")
# In a folder, a file that replaces another may have its size and modification time. "created" is the change time then.
# The inode is not part of the tag, because file systems in user space may change a file's inode at any time.
FILE_TAG_KEYS = ("mtime", "created")


class CannotOpenBucket(ConvoyError):
    """The URL is not supported, or the packages that read it are missing."""

    code = "cannot_open_bucket"
    hint = "Use s3://bucket/folder, gs://bucket/folder or file:///folder, or the path of a folder."


class BucketUnreachable(ConvoyError):
    """The bucket, or an object in it, cannot be read now: because of the network or the credentials, or because it does
    not exist."""

    code = "bucket_unreachable"
    hint = "Check the URL, the credentials and the network. Fetched models stay in use, and the service retries."


class BucketDenied(BucketUnreachable):
    """The credentials may not list the bucket."""

    code = "bucket_denied"
    hint = "Grant the service's credentials permission to list the bucket and to read its objects."


class ObjectRefused(ConvoyError):
    """The bucket can be read, but this object in it cannot."""

    code = "object_refused"
    hint = "Grant the service's credentials permission to read the object."


class ObjectInfo(NamedTuple):
    """One listed object. `tag` changes when the object is rewritten. `is_regular_file` is False for links."""

    bytes: int
    tag: str
    is_regular_file: bool = True


class FileSystem(Protocol):
    """The methods of an fsspec file system that are used here."""

    def find(self, path: str, detail: bool, **options: Any) -> Mapping[str, Mapping[str, Any]]: ...

    def info(self, path: str, **options: Any) -> Mapping[str, Any]: ...

    def cat_file(self, path: str, start: int, end: int, **options: Any) -> bytes: ...


class _Scheme(NamedTuple):
    package: str
    module: str
    file_system: str
    options: dict[str, Any]
    find_options: dict[str, Any]
    read_options: dict[str, Any]


S3_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 2}}
FIND_TIMEOUT, READ_TIMEOUT = {"timeout": LISTING_TIMEOUT_S}, {"timeout": CHUNK_TIMEOUT_S}
SCHEMES = {
    # botocore's default of five attempts of a minute each would delay a start by minutes.
    "s3": _Scheme("s3fs", "s3fs", "S3FileSystem", {"config_kwargs": S3_TIMEOUTS}, FIND_TIMEOUT, READ_TIMEOUT),
    # gcsfs' default class asks Google over gRPC for the type of the bucket, which takes minutes if gRPC is blocked.
    "gs": _Scheme("gcsfs", "gcsfs.core", "GCSFileSystem", {"requests_timeout": 30}, FIND_TIMEOUT, READ_TIMEOUT),
    # By default fsspec skips folders that it cannot read, so their versions would look deleted.
    "file": _Scheme("fsspec", "fsspec.implementations.local", "LocalFileSystem", {}, {"on_error": "raise"}, {}),
}


class Bucket:
    """All objects under one URL, by their path below it."""

    def __init__(
        self,
        url: str,
        files: FileSystem,
        root: str,
        find_options: Mapping[str, Any] | None = None,
        read_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url
        self._files = files
        self._root = root
        self._find_options = find_options or {}
        self._read_options = read_options or {}

    def listing(self) -> dict[str, ObjectInfo]:
        """Lists all objects, by path below the URL. Raises BucketUnreachable."""
        try:
            entries = self._files.find(self._root, detail=True, **self._find_options)
        except PermissionError as error:
            raise BucketDenied(f"{self.url} cannot be listed: {_reason(error)}.") from error
        except Exception as error:  # each cloud's package has its own classes
            raise BucketUnreachable(f"{self.url} cannot be read: {_reason(error)}.") from error
        prefix = f"{self._root}/"
        return {
            path.removeprefix(prefix): _object_info(info) for path, info in entries.items() if path.startswith(prefix)
        }

    def info(self, path: str) -> ObjectInfo:
        """Returns size and tag of one object. Raises ObjectRefused or BucketUnreachable."""
        with self._errors_of(path):
            return _object_info(self._files.info(f"{self._root}/{path}", **self._read_options))

    def chunks(self, path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        """Yields the bytes of one object in chunks, up to `size_bytes`, by default its current size.

        Raises ObjectRefused or BucketUnreachable.
        """
        full_path, options = f"{self._root}/{path}", self._read_options
        with self._errors_of(path):
            if size_bytes is None:
                size_bytes = int(self._files.info(full_path, **options)["size"] or 0)
            for start in range(0, size_bytes, CHUNK_BYTES):
                end = min(start + CHUNK_BYTES, size_bytes)
                yield self._files.cat_file(full_path, start=start, end=end, **options)

    @contextmanager
    def _errors_of(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionError) as error:
            raise ObjectRefused(f"{self.url}/{path} cannot be read: {_reason(error)}.") from error
        except Exception as error:
            raise BucketUnreachable(f"{self.url}/{path} cannot be read: {_reason(error)}.") from error


def is_url(models: str) -> bool:
    """Whether the setting is a URL rather than the path of a folder."""
    return "://" in models


def open_bucket(url: str) -> Bucket:
    """Returns the bucket of an s3://, gs:// or file:// URL, without accessing it. Raises CannotOpenBucket."""
    scheme = SCHEMES[_parse_scheme(url)]
    try:
        file_system_class = getattr(import_module(scheme.module), scheme.file_system)
    except ImportError as error:
        hint = (
            "Install the extra `bucket`: pip install --require-hashes -r requirements/serve-bucket.txt, or only its "
            f"package: pip install {scheme.package}."
        )
        raise CannotOpenBucket(f"The Python package that reads {url} is missing: {_reason(error)}.", hint) from error
    # No caches, because a listing must be current.
    files = file_system_class(skip_instance_cache=True, use_listings_cache=False, **scheme.options)
    root: str = import_module("fsspec.core").strip_protocol(url)
    return Bucket(url.rstrip("/"), files, root.rstrip("/"), scheme.find_options, scheme.read_options)


def _parse_scheme(url: str) -> str:
    """Returns the URL's scheme. Raises CannotOpenBucket for a URL that is not valid for a bucket."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise CannotOpenBucket(f"'{parts.scheme}://' cannot be read.")
    if "@" in parts.netloc:
        raise CannotOpenBucket(
            "The bucket's URL contains credentials.", "Pass them in environment variables, never in the URL."
        )
    if parts.query or parts.fragment:
        raise CannotOpenBucket(f"{url} contains a '?' or a '#', which is not allowed in the URL of a bucket.")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.strip("/"):
            raise CannotOpenBucket(f"{url} does not name a folder.", "Use three slashes: file:///srv/models.")
    elif not parts.netloc:
        raise CannotOpenBucket(f"{url} does not name a bucket.")
    return parts.scheme


def _object_info(info: Mapping[str, Any]) -> ObjectInfo:
    file_tag = ":".join(str(info[key]) for key in FILE_TAG_KEYS if key in info)
    tag = next((str(info[key]) for key in TAG_KEYS if info.get(key)), file_tag)
    is_regular_file = info.get("type", "file") == "file" and not info.get("islink", False)
    return ObjectInfo(int(info["size"] or 0), tag, is_regular_file)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
