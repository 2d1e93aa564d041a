"""Objects by key under a prefix in a bucket of S3, of an S3-compatible store, or of Google Cloud Storage."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from hcpr_tune.common.buckets.connection import (
    CREDENTIALS,
    BucketConnection,
    object_sizes,
    read_object,
    reason_of,
    server_of,
    unless_missing,
    write_object,
)
from hcpr_tune.common.buckets.location import SCHEME, Location
from hcpr_tune.common.buckets.location import is_bucket as is_bucket
from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.errors import InputError, StorageError

# Options after the `?` of a URL. The names are pyarrow's, so that the same URL works for anything that uses pyarrow.
OPTIONS = {
    "s3": ("endpoint_override", "region", "scheme", "tls_ca_file_path"),
    "gs": ("endpoint_override", "project_id", "scheme"),
}
PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # between attempts: a restarting store is back within seconds
# No attempt starts later than this. One attempt may take 10 s if a store accepts the connection but does not respond,
# so that a caller waits less than 20 s in total.
LAST_START_S = 8.0
# Patterns of pyarrow's messages, with hints. These errors do not go away, so they are not retried.
LASTING = (
    (
        r"NO_SUCH_BUCKET|bucket '[^']*' not found|bucket does not exist",
        "create the bucket or correct its name; it is not created here",
    ),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT"
        r"|EXPIRED_TOKEN|MISSING_AUTHENTICATION|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED",
        "give credentials that may read, write, list and delete there",
    ),
    (
        r"PERMANENT_REDIRECT|HTTP status 30[17]|IllegalLocation|AUTHORIZATION_HEADER_MALFORMED",
        "set the region of the bucket (AWS_DEFAULT_REGION)",
    ),
    (
        r"HTTP status 400|INVALID_PARAMETER|VALIDATION|INVALID_ARGUMENT|NotImplemented",
        "the store does not support such a request",
    ),
)
UNREACHABLE = r"NETWORK_CONNECTION|curlCode|CURL error|Could not resolve"
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Bucket:
    """The objects under one prefix of a bucket, by their keys relative to it (`record/0001.json`).

    `url` is `s3://bucket/prefix` or `gs://bucket/prefix`, with pyarrow's options after a `?` (`endpoint_override`,
    `scheme`, `region`). Without an endpoint in the URL, AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are used. The
    connection is opened on first use. All methods are thread-safe and retry transient errors, for less than 20 s.

    A prefix that has lost all its objects keeps an empty one, `prefix/`, with which pyarrow marks folders. `keys` never
    lists it.

    Raises `InputError` for a URL that is invalid or contains credentials. Every method that accesses the store raises
    `StorageError`, and `ValueError`, a bug in the caller, for a key that is empty, begins or ends with `/` or has empty
    parts.
    """

    def __init__(self, url: str) -> None:
        self._store, self._prefix = _parsed(url)

    @property
    def url(self) -> str:
        """The URL with its options, for `Bucket` and pyarrow."""
        prefix = f"/{quote(self._prefix)}" if self._prefix else ""
        query = "&".join(f"{name}={quote(value, safe=':/')}" for name, value in self._store.options.items())
        return f"{self._store.scheme}://{self._store.bucket}{prefix}" + (f"?{query}" if query else "")

    @property
    def server(self) -> str:
        """Which server is asked on this machine, and what says so, for messages."""
        return server_of(self._store)

    def child(self, name: str) -> Bucket:
        """The objects below `name`, with the same connection."""
        _check_key(name)
        child = Bucket.__new__(Bucket)
        child._store, child._prefix = self._store, f"{self._prefix}/{name}" if self._prefix else name
        return child

    def read(self, key: str) -> bytes | None:
        """The whole object as one writer left it, or None if there is none. It is held in memory."""
        place = self._place(key)
        data: bytes | None = self._asked("read", key, lambda: read_object(self._store, place))
        return data

    def write(self, key: str, data: bytes) -> None:
        """Create or replace an object. A reader sees the old one or all of the new one."""
        place = self._place(key)
        self._asked("written", key, lambda: write_object(self._store, place, data))

    def upload(self, path: Path, key: str) -> None:
        """`write` from a file, which is held in memory. Raises `OSError` if the file cannot be read."""
        # Not written piece by piece: an error or interrupt would close the stream, which publishes what it has so far.
        self.write(key, path.read_bytes())

    def download(self, key: str, path: Path) -> bool:
        """`read` into a file, atomically; False if there is no object. Raises `OSError` if writing fails."""
        data = self.read(key)
        if data is None:
            return False
        write_bytes_whole(path, data)
        return True

    def delete(self, key: str) -> None:
        """Delete an object if it exists."""
        place = self._place(key)
        self._asked("deleted", key, lambda: unless_missing(self._store, self._store.opened().delete_file, place))

    def delete_tree(self, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix/`, if any. Not safe if others still write there."""
        place = self._place(prefix)
        self._asked(
            "deleted", f"{prefix}/", lambda: unless_missing(self._store, self._store.opened().delete_dir, place)
        )

    def keys(self, prefix: str = "") -> list[str]:
        """The sorted keys that begin with `prefix/` (all for ""), at any depth, relative to the bucket's own prefix."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Like `keys`, with the size of each object in bytes."""
        top = self._place(prefix) if prefix else self._place()
        found: dict[str, int] = self._asked(
            "listed", f"{prefix}/" if prefix else "", lambda: object_sizes(self._store, top)
        )
        skipped = len(self._place()) + 1
        return {place[skipped:]: size for place, size in found.items()}

    def check(self) -> None:
        """Write, read, list and delete a small test object. Raises `InputError` if one of these fails."""
        self._check(listed=True)

    def check_objects(self) -> None:
        """The same without listing, which takes long where there are many objects. Raises `InputError`."""
        self._check(listed=False)

    def _check(self, listed: bool) -> None:
        key, data = f".hcpr_tune-check-{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            self.write(key, data)
            same = self.read(key) == data and (not listed or key in self.keys())
            self.delete(key)
        except StorageError as error:
            raise InputError(str(error)) from error
        if not same:
            raise InputError(
                f"{self.url}: an object that was just written is not read or listed as it was;"
                " use a store with strong read-after-write consistency"
            )

    def _place(self, key: str | None = None) -> str:
        """pyarrow's name for an object or, without a key, for the prefix."""
        if key is not None:
            _check_key(key)
        return "/".join(part for part in (self._store.bucket, self._prefix, key) if part)

    def _asked(self, verb: str, key: str, action: Callable[[], Any]) -> Any:
        """The result of `action`, after up to five attempts. Raises `StorageError`."""
        started = time.monotonic()
        for pause in (*PAUSES_S, None):
            try:
                return action()
            except OSError as error:
                reason = reason_of(error)
                over = pause is None or time.monotonic() - started + pause > LAST_START_S
                if over or _hint(reason) is not None:
                    raise StorageError(self._failure(verb, key, reason)) from None
                time.sleep(pause or 0.0)
        raise AssertionError("the last pause is None")

    def _failure(self, verb: str, key: str, reason: str) -> str:
        what = f"{key!r} cannot be {verb}" if key else f"the objects cannot be {verb}"
        hint = _hint(reason)
        if hint is None and re.search(UNREACHABLE, reason):
            hint = "the store cannot be reached: check the endpoint and the network, then start again"
        return f"{self.url}: {what}: {reason} (asked {self.server}); {hint or 'start again when the store works'}"


def _parsed(url: str) -> tuple[BucketConnection, str]:
    """The store and the prefix. Messages never have the host part or option values, which may be secret."""
    location = Location.parse(url)
    match = SCHEME.match(location.path)
    scheme = match.group(1).lower() if match else ""
    if match is None or scheme not in OPTIONS:
        raise InputError(
            f"storage URL with unknown scheme {scheme!r}; give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or a path"
        )
    bucket, _, path = location.path[match.end() :].partition("/")
    if "@" in bucket or ":" in bucket:
        bounds = "a storage URL has a bucket, but no user, password or port"
        raise InputError(
            f"{scheme}:// URL with '@' or ':' before its path: {bounds}; {CREDENTIALS[scheme]};"
            " give a server by ?endpoint_override="
        )
    if not _BUCKET_NAME.fullmatch(bucket):
        raise InputError(
            f"{scheme}:// URL without a valid bucket, a name of letters, digits, '.', '_' and '-';"
            f" write {scheme}://BUCKET/PREFIX"
        )
    prefix = unquote(path).strip("/")
    if prefix and not _is_key(prefix):
        raise InputError(
            f"{scheme}://{bucket}: a prefix cannot have empty parts, '.' or '..'; write {scheme}://{bucket}/NAME/NAME"
        )
    return BucketConnection(scheme, bucket, _options(scheme, bucket, location.options)), prefix


def _options(scheme: str, bucket: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS[scheme]:
            known = ", ".join(OPTIONS[scheme])
            raise InputError(
                f"{scheme}://{bucket}: an option after '?' is unknown; known: {known}; {CREDENTIALS[scheme]}"
            )
    if options.get("scheme", "https") not in ("http", "https"):
        raise InputError(f"{scheme}://{bucket}: option scheme must be 'http' or 'https'")
    if "@" in options.get("endpoint_override", ""):
        raise InputError(f"{scheme}://{bucket}: option endpoint_override contains a user; {CREDENTIALS[scheme]}")
    return options


def _check_key(key: str) -> None:
    if not _is_key(key):
        raise ValueError(f"{key!r} is not a key: parts between single '/', none of them empty, '.' or '..'")


def _is_key(text: str) -> bool:
    return all(part not in ("", ".", "..") for part in text.split("/"))


def _hint(reason: str) -> str | None:
    """A hint for an error that does not go away; None for one that may be transient."""
    return next((hint for pattern, hint in LASTING if re.search(pattern, reason, re.IGNORECASE)), None)
