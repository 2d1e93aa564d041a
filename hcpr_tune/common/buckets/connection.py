"""pyarrow's file systems for a bucket: opened on first use, objects read and written whole."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from hcpr_tune.common.text import clean, named
from hcpr_tune.errors import InputError

CREDENTIALS = {
    "s3": "credentials belong in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE) or in a role",
    "gs": "credentials belong in the environment (GOOGLE_APPLICATION_CREDENTIALS) or in a role",
}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""The variables that name the endpoint of an S3-compatible store, the first one first."""
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
SINGLE_REQUEST_BYTES = 2**22  # below 5 MiB, from which S3 uploads are in parts


class BucketConnection:
    """One connection: a URL without its prefix, and pyarrow's file systems, opened on first use."""

    def __init__(self, scheme: str, bucket: str, options: dict[str, str]) -> None:
        self.scheme, self.bucket, self.options = scheme, bucket, options
        self._lock = threading.Lock()
        self._opened: dict[bool, Any] = {}
        self._exists = False
        self.region: str | None = None  # of a bucket at Amazon, once looked up

    def opened(self, at_once: bool = False) -> Any:
        """pyarrow's file system. `at_once`: for objects uploaded in one request."""
        with self._lock:
            if at_once not in self._opened:
                self._opened[at_once] = _open_s3(self, at_once) if self.scheme == "s3" else _open_gs(self)
            return self._opened[at_once]

    def confirm_bucket(self) -> None:
        """Raises `OSError` if the bucket is missing, which pyarrow reports like a missing object. Checked once."""
        from pyarrow.fs import FileType

        if self._exists:
            return
        try:
            missing = self.opened().get_file_info(self.bucket).type == FileType.NotFound
        except OSError as error:
            # Permission to read objects does not imply permission to look up the bucket.
            if re.search("ACCESS_DENIED|HTTP status 403|PERMISSION_DENIED", str(error)) is None:
                raise
            missing = False
        if missing:
            raise OSError(f"bucket '{self.bucket}' not found")
        self._exists = True


def _open_s3(store: BucketConnection, at_once: bool) -> Any:
    # Not by pyarrow's from_uri, which would try a missing endpoint for 6 s and an unresponsive one for 100 s.
    try:
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region
    except ImportError:
        raise InputError("s3:// needs a pyarrow built with S3; install pyarrow from its wheels") from None
    endpoint, scheme = _endpoint(store)
    try:
        region = store.options.get("region")
        if region is None and endpoint is None:  # at Amazon, where a bucket responds only in its own region
            region = store.region = store.region or resolve_s3_region(store.bucket)
        return S3FileSystem(
            region=region,  # None: from the AWS_ variables and files
            endpoint_override=endpoint,
            scheme=scheme,
            tls_ca_file_path=store.options.get("tls_ca_file_path"),
            # One request instead of three. Not for uploads in parts: if their first request fails, pyarrow would write
            # an empty object when the stream is dropped.
            allow_delayed_open=at_once,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),  # `Bucket._asked` retries
        )
    except ValueError as error:
        raise InputError(
            f"s3://{store.bucket}: {reason_of(error)}; correct the options after '?' or the AWS_ variables"
        ) from None


def _endpoint(store: BucketConnection) -> tuple[str | None, str]:
    """Host (and port) and scheme of a store that is not Amazon's. S3FileSystem ignores the environment variables."""
    endpoint, _ = named_endpoint(store)
    scheme = store.options.get("scheme", "https")
    if not endpoint:
        return None, scheme
    if "@" in endpoint:
        raise InputError(f"AWS_ENDPOINT_URL contains a user; {CREDENTIALS['s3']}")
    named, separator, host = endpoint.rpartition("://")
    if named not in ("", "http", "https"):
        raise InputError(
            f"s3://{store.bucket}: an endpoint must begin with http:// or https://;"
            " correct AWS_ENDPOINT_URL or endpoint_override"
        )
    return host.rstrip("/"), named if separator else scheme


def named_endpoint(store: BucketConnection) -> tuple[str, str]:
    """The endpoint as it is given, and by what; both empty for the scheme's own store."""
    if endpoint := store.options.get("endpoint_override"):
        return endpoint, "the URL"
    for name in ENDPOINTS if store.scheme == "s3" else ():
        if endpoint := os.environ.get(name):
            return endpoint, name
    return "", ""


def server_of(store: BucketConnection) -> str:
    """Whom the connection asks and what says so, for messages: it may differ from node to node."""
    endpoint, given_by = named_endpoint(store)
    if not endpoint:
        return "Amazon S3, since AWS_ENDPOINT_URL is not set" if store.scheme == "s3" else "Google Cloud Storage"
    return f"{endpoint.rpartition('@')[2]}, the endpoint in {given_by}"


def _open_gs(store: BucketConnection) -> Any:
    try:
        from pyarrow.fs import GcsFileSystem
    except ImportError:
        raise InputError(
            "gs:// needs a pyarrow built with Google Cloud Storage; install pyarrow from its wheels"
        ) from None
    return GcsFileSystem(
        endpoint_override=store.options.get("endpoint_override"),
        scheme=store.options.get("scheme"),
        project_id=store.options.get("project_id"),
        retry_time_limit=timedelta(seconds=3),
    )


def read_object(store: BucketConnection, place: str) -> bytes | None:
    """Read an object. Raises `OSError`, to be retried, if it was replaced during the read.

    pyarrow asks for the size, then for that many bytes, so that an object replaced in between would be truncated.
    Opened as a file, since pyarrow reads streams without asking for the size, in one request per 16 KiB.
    """
    files = store.opened()
    try:
        with files.open_input_file(place) as file:
            before, data = file.metadata(), bytes(file.read())
        with files.open_input_file(place) as file:
            after = file.metadata()
    except FileNotFoundError:
        store.confirm_bucket()
        return None
    if before != after:
        raise OSError("the object was replaced while it was read")
    return data


def write_object(store: BucketConnection, place: str, data: bytes) -> None:
    """Write all of `data`, or leave the object as it is.

    A pyarrow stream cannot be aborted: when dropped or closed, it publishes what it was given so far. So no interrupt
    may come between opening, writing and closing. Python delivers interrupts to the main thread only, hence the other
    thread.
    """
    if threading.current_thread() is threading.main_thread():
        with ThreadPoolExecutor(1, thread_name_prefix="bucket-write") as apart:
            apart.submit(_publish, store, place, data).result()
    else:
        _publish(store, place, data)


def _publish(store: BucketConnection, place: str, data: bytes) -> None:
    stream = store.opened(at_once=len(data) <= SINGLE_REQUEST_BYTES).open_output_stream(place)
    stream.write(data)
    stream.close()


def unless_missing(store: BucketConnection, action: Callable[[str], None], place: str) -> None:
    try:
        action(place)
    except FileNotFoundError:
        store.confirm_bucket()


def object_sizes(store: BucketConnection, top: str) -> dict[str, int]:
    from pyarrow.fs import FileSelector, FileType

    found = store.opened().get_file_info(FileSelector(top, recursive=True, allow_not_found=True))
    sizes = {str(entry.path): int(entry.size) for entry in found if entry.type == FileType.File}
    if not sizes:
        store.confirm_bucket()
    return sizes


def reason_of(error: BaseException) -> str:
    """The reason on one line, without secrets from the environment."""
    lines = str(error).strip().splitlines()
    reason = clean(lines[0].rstrip(".; ")) if lines else named(error)
    for secret in filter(None, map(os.environ.get, SECRET_VARIABLES)):
        reason = reason.replace(secret, "***")
    return reason
