"""Where whole inputs are kept in the end: a folder, or a bucket of S3."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from contracts.files import whole
from store.errors import PayloadError
from store.payloads.samples import files


class Place(Protocol):
    """Where whole inputs are kept, by name; what is not there is FileNotFoundError to read, and nothing to remove."""

    def write(self, name: str, content: bytes) -> None: ...
    def read(self, name: str) -> bytes: ...
    def remove(self, name: str) -> None: ...
    def names(self) -> Iterator[str]: ...


class Folder:
    """A folder as a place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole."""
        path = self._path / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole.write(path, content, mode=0o600)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self._path / name).read_bytes()

    def remove(self, name: str) -> None:
        """Remove a file, and the folder of its day if that was the last."""
        path = self._path / name
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def names(self) -> Iterator[str]:
        """Yield the names of all files."""
        yield from (str(path.relative_to(self._path)) for path in files(self._path))


class Bucket:
    """A bucket of S3 as a place."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3
        from botocore.config import Config

        limits = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 2})
        self._client = boto3.session.Session().client("s3", config=limits)  # of now, not of the first in this process
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def write(self, name: str, content: bytes) -> None:
        """Put an object."""
        with _answering():
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def read(self, name: str) -> bytes:
        """Get an object."""
        with _answering():
            content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
        return content

    def remove(self, name: str) -> None:
        """Remove an object."""
        with _answering():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def names(self) -> Iterator[str]:
        """Yield the names of all objects, a thousand a request."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        with _answering():
            for page in pages:
                yield from (each["Key"].removeprefix(self._prefix) for each in page.get("Contents", ()))


def place_of(url: str) -> Place:
    """Return the place that a folder's path or s3://BUCKET/PREFIX names.

    Raises:
        PayloadError: it names no bucket, or something else.
    """
    kind, separator, rest = url.partition("://")
    if not separator:
        return Folder(Path(url))
    bucket, _, prefix = rest.partition("/")
    if kind == "file" and rest.startswith("/"):
        return Folder(Path(rest))
    if kind != "s3" or not bucket:
        raise PayloadError(f"{url!r} is no place for inputs", hint="a folder, or s3://BUCKET/PREFIX, in PAYLOADS_URL")
    return Bucket(bucket, prefix)


@contextmanager
def _answering() -> Iterator[None]:
    """Make what S3 and its client say an OSError, as a folder would raise it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            raise FileNotFoundError("no such object") from None
        raise OSError(str(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
