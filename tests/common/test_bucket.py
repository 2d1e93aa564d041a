"""Objects in a bucket, on a real S3 server: round trips, what is refused, what happens while the store is down."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hcpr_tune.common.buckets.bucket import Bucket, is_bucket
from hcpr_tune.common.buckets.connection import BucketConnection
from hcpr_tune.errors import InputError, StorageError
from tests.s3 import SECRET, S3Server, s3_server

__all__ = ["s3_server"]

UNUSED = ("AWS_CA_BUNDLE", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN")


@pytest.fixture
def server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    for name in UNUSED:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    s3_server.resume()
    s3_server.start()


@pytest.fixture
def bucket(server: S3Server) -> Bucket:
    return Bucket(f"s3://{server.new_bucket()}/a study")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("s3://bucket/prefix", True),
        ("gs://bucket", True),
        ("ftp://host", True),
        ("runs/study", False),
        ("/s3:/x", False),
        ("C:\\runs", False),
        ("", False),
    ],
)
def test_a_bucket_is_told_from_a_path(text: str, answer: bool) -> None:
    assert is_bucket(text) is answer


def test_pyarrow_is_not_imported_before_it_is_used() -> None:
    code = (
        "import sys; from hcpr_tune.common.buckets.bucket import Bucket; Bucket('s3://b/x').child('y');"
        " print('pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# What is refused


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAKEY:{SECRET}@bucket/x",
        f"s3://AKIAKEY:{SECRET}/more@bucket/x",
        f"s3://{SECRET}@bucket",
        f"s3://bucket/x?secret_key={SECRET}",
        f"s3://bucket/x?{SECRET}=1",
        f"s3://bucket?endpoint_override=http://me:{SECRET}@host",
        f"gs://me:{SECRET}@bucket",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="credentials belong in the environment") as caught:
        Bucket(url)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "file:///tmp", "bucket/x", "s3://", "s3:///x", "s3://a b/x", "s3://b/x//y", "s3://b/../c"]
)
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="s3://"):
        Bucket(url)


@pytest.mark.parametrize("url", ["s3://b?scheme=ftp", "s3://b?bogus=1", "gs://b?region=x"])
def test_an_option_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="option"):
        Bucket(url)


@pytest.mark.parametrize("endpoint", [f"http://me:{SECRET}@host", "ftp://host"])
def test_an_endpoint_that_cannot_be_used_is_bad_input(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL") as caught:
        Bucket("s3://b/x").read("y")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", "."])
def test_a_key_that_is_none_is_a_fault_of_the_program(key: str) -> None:
    bucket = Bucket("s3://b/x")
    for action in (bucket.read, bucket.delete, bucket.delete_tree, bucket.child, lambda key: bucket.write(key, b"")):
        with pytest.raises(ValueError, match="is not a key"):
            action(key)


# Names


def test_a_child_keeps_the_options_and_quotes_its_name() -> None:
    bucket = Bucket("s3://b/a%20study/?region=eu-west-1&endpoint_override=http://127.0.0.1:9000")
    assert bucket.url == "s3://b/a%20study?region=eu-west-1&endpoint_override=http://127.0.0.1:9000"
    child = bucket.child("trials/ü 1")
    assert child.url == "s3://b/a%20study/trials/%C3%BC%201?region=eu-west-1&endpoint_override=http://127.0.0.1:9000"
    assert Bucket(child.url).url == child.url
    assert Bucket("s3://b").child("x").url == "s3://b/x"


# Round trips


@pytest.mark.parametrize("key", ["plain", "deep/er/name.json", "with space/ü ∂ 50%.txt", "a+b&c=d?e#f"])
@pytest.mark.parametrize("data", [b"", b"\x00\xff\n" * 400])
def test_what_is_written_is_read(bucket: Bucket, key: str, data: bytes) -> None:
    assert bucket.read(key) is None
    bucket.write(key, data)
    assert bucket.read(key) == data
    assert bucket.sizes() == {key: len(data)}
    bucket.write(key, b"replaced")
    assert bucket.read(key) == b"replaced"
    bucket.delete(key)
    assert bucket.read(key) is None
    bucket.delete(key)
    assert bucket.keys() == []


def test_keys_are_listed_below_a_prefix_and_relative_to_the_bucket(bucket: Bucket) -> None:
    for key in ("b", "a/2", "a/1", "a/x/3", "ab/4"):
        bucket.write(key, key.encode())
    assert bucket.keys() == ["a/1", "a/2", "a/x/3", "ab/4", "b"]
    assert bucket.keys("a") == ["a/1", "a/2", "a/x/3"]
    assert bucket.sizes("a/x") == {"a/x/3": 5}
    assert bucket.keys("nothing") == []
    assert bucket.child("a").keys() == ["1", "2", "x/3"]
    assert bucket.child("a").read("x/3") == b"a/x/3"


def test_more_keys_than_fit_on_a_page_of_the_listing(bucket: Bucket) -> None:
    names = [f"{number:04d}" for number in range(1005)]
    threads = [
        threading.Thread(target=lambda part=part: [bucket.write(n, b"x") for n in part])
        for part in (names[::2], names[1::2])
    ]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.keys() == names


def test_a_tree_is_deleted_with_its_markers_and_nothing_beside_it(server: S3Server) -> None:
    name = server.new_bucket()
    bucket = Bucket(f"s3://{name}")
    for key in ("t/1", "t/x/2", "t2/3", "u"):
        bucket.write(key, b"x")
    bucket.delete("t/x/2")
    bucket.delete_tree("t")
    bucket.delete_tree("t")
    assert bucket.keys() == ["t2/3", "u"]
    assert "<Key>t/" not in server.keys(name)


def test_writing_leaves_no_folder_markers_and_deleting_one_that_is_not_listed(server: S3Server) -> None:
    name = server.new_bucket()
    bucket = Bucket(f"s3://{name}/p")
    bucket.write("d/1", b"x")
    assert server.keys(name).count("<Key>") == 1
    bucket.delete("d/1")
    assert "<Key>p/d/</Key>" in server.keys(name)
    assert bucket.keys() == []
    bucket.write("d/1", b"y")
    assert bucket.read("d/1") == b"y"


def test_a_large_file_goes_up_and_comes_back(bucket: Bucket, tmp_path: Path) -> None:
    block = bytes(range(256)) * 4096
    (tmp_path / "big").write_bytes(block * 20)
    bucket.upload(tmp_path / "big", "weights/ü.bin")
    assert bucket.sizes() == {"weights/ü.bin": 20 * 2**20}
    assert bucket.download("weights/ü.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == block * 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "big"]


def test_a_missing_object_leaves_the_file_alone(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    assert not bucket.download("missing", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_local_file_that_cannot_be_used_is_no_failure_of_the_store(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bucket.upload(tmp_path / "missing", "x")
    bucket.write("x", b"1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        bucket.download("x", tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_reader_never_sees_part_of_an_object_that_is_replaced(bucket: Bucket) -> None:
    bucket.write("x", b"a" * 10)
    done = threading.Event()

    def replace() -> None:
        for number in range(26):
            bucket.write("x", bytes([97 + number]) * (10 + 1000 * (number % 7)))
            time.sleep(0.02)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not done.is_set():
        data = bucket.read("x")
        assert data is not None
        assert len(set(data)) == 1
        assert len(data) == 10 + 1000 * ((data[0] - 97) % 7)
    writer.join()


# Endpoints


def test_the_endpoint_may_stand_in_the_url(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    host = server.url.removeprefix("http://")
    for options in (f"endpoint_override={host}&scheme=http&region=us-east-1", f"endpoint_override={server.url}"):
        bucket = Bucket(f"s3://{server.new_bucket()}/p?{options}")
        bucket.child("c").write("x", b"1")
        assert Bucket(bucket.url).read("c/x") == b"1"


def test_the_variable_for_s3_alone_goes_first(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"{server.url}/")
    Bucket(f"s3://{server.new_bucket()}").check()


def test_messages_name_the_server_that_is_asked_and_what_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert Bucket("s3://b").server == "Amazon S3, since AWS_ENDPOINT_URL is not set"
    assert Bucket("gs://b").server == "Google Cloud Storage"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert Bucket("gs://b").server == "Google Cloud Storage"
    assert Bucket("s3://b").server == "http://store:9000, the endpoint in AWS_ENDPOINT_URL"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://me:secret@s3:9000")
    assert Bucket("s3://b").server == "s3:9000, the endpoint in AWS_ENDPOINT_URL_S3"
    assert Bucket("s3://b?endpoint_override=own:1").server == "own:1, the endpoint in the URL"


# Failures


def test_a_check_leaves_no_object(bucket: Bucket) -> None:
    bucket.check()
    assert bucket.keys() == []


@pytest.mark.parametrize("name", ["no-such-bucket", "no-such-bucket/with/prefix"])
def test_a_bucket_that_is_not_there_is_told_at_once(server: S3Server, name: str, tmp_path: Path) -> None:
    bucket = Bucket(f"s3://{name}")
    started = time.monotonic()
    with pytest.raises(
        InputError, match=rf"\(asked {server.url}, the endpoint in AWS_ENDPOINT_URL\); create the bucket"
    ):
        bucket.check()
    for action in (
        lambda: bucket.read("x"),
        lambda: bucket.write("x", b"1"),
        lambda: bucket.delete("x"),
        lambda: bucket.delete_tree("x"),
        lambda: bucket.keys(),
        lambda: bucket.download("x", tmp_path / "x"),
    ):
        with pytest.raises(StorageError, match=r"no-such-bucket.*create the bucket"):
            action()
    assert time.monotonic() - started < 20
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_there_is_told_in_time(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"s3://b/x: .*cannot be written: .*the store cannot be reached") as caught:
        Bucket("s3://b/x").check()
    assert time.monotonic() - started < 20
    assert SECRET not in str(caught.value) + capfd.readouterr().err
    assert "\n" not in str(caught.value)


def test_a_store_that_says_nothing_is_told_in_time(bucket: Bucket, server: S3Server) -> None:
    bucket.write("x", b"1")
    server.pause()
    started = time.monotonic()
    with pytest.raises(StorageError, match="cannot be written"):
        bucket.write("x", b"2")
    assert time.monotonic() - started < 20
    server.resume()
    assert bucket.read("x") in (b"1", b"2")


def test_a_store_that_comes_back_is_used_again(bucket: Bucket, server: S3Server) -> None:
    bucket.write("x", b"1")
    server.stop()
    back = threading.Timer(1.5, server.start)
    back.start()
    bucket.write("x", b"2")
    back.join()
    assert bucket.read("x") == b"2"
    server.stop()
    back = threading.Timer(1.5, server.start)
    back.start()
    assert bucket.read("x") == b"2"
    back.join()


@pytest.mark.parametrize("size", [4, 25_000_000])
def test_a_write_that_failed_leaves_what_was_there(
    bucket: Bucket, server: S3Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    monkeypatch.setattr("hcpr_tune.common.buckets.bucket.PAUSES_S", ())
    bucket.write("x", b"good")
    server.stop()
    with pytest.raises(StorageError) as caught:
        bucket.write("x", b"l" * size)
    server.start()
    del caught
    gc.collect()
    assert bucket.read("x") == b"good"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_an_interrupt_does_not_cut_an_object_off(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    bucket.write("x", b"good")
    opened = BucketConnection.opened
    # What is started in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Interrupting:
        def __init__(self, files: Any) -> None:
            self.files = files

        def open_output_stream(self, place: str) -> Any:
            stream = self.files.open_output_stream(place)
            signal.raise_signal(signal.SIGINT)
            return stream

    with monkeypatch.context() as patched:
        patched.setattr(
            BucketConnection,
            "opened",
            lambda store, at_once=False: Interrupting(opened(store, at_once)),
        )
        with pytest.raises(KeyboardInterrupt):
            bucket.write("x", b"n" * size)
    signal.signal(signal.SIGINT, before)
    gc.collect()
    assert bucket.read("x") == b"n" * size


class _Refusing(BaseHTTPRequestHandler):
    def refuse(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815 (the names http.server calls)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_refusal_is_told_at_once_and_no_bucket_is_guessed(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.server_port}")
        bucket = Bucket("s3://b/x")
        started = time.monotonic()
        for action in (
            lambda: bucket.read("y"),
            lambda: bucket.write("y", b"1"),
            lambda: bucket.delete("y"),
            lambda: bucket.keys(),
        ):
            with pytest.raises(StorageError, match="give credentials that may read"):
                action()
        assert time.monotonic() - started < 5
        refusing.shutdown()


def _count_requests(listening: socket.socket, store: tuple[str, int], methods: list[str]) -> None:
    """Pass on what comes in, and note the method: the store answers one request on each connection, and closes it."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)

    def pass_on(asking: socket.socket) -> None:
        with asking, socket.create_connection(store) as answering:
            methods.append(asking.recv(4, socket.MSG_PEEK).decode().strip())
            there = threading.Thread(target=pump, args=(asking, answering))
            there.start()
            pump(answering, asking)
            asking.shutdown(socket.SHUT_RDWR)
            there.join()

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=pass_on, args=(listening.accept()[0],)).start()


def test_an_object_is_read_in_one_request_however_large_it_is(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket_name, data, methods = server.new_bucket(), bytes(range(256)) * 2**12, []
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_count_requests, args=(listening, (host, int(port)), methods), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        bucket = Bucket(f"s3://{bucket_name}/x")
        bucket.write("large", data)
        methods.clear()
        assert bucket.read("large") == data
        listening.shutdown(socket.SHUT_RDWR)
    assert sorted(methods) == ["GET", "HEAD", "HEAD"]


def test_a_process_that_used_a_store_ends_quietly(server: S3Server) -> None:
    name = server.new_bucket()
    code = (
        "from hcpr_tune.common.buckets.bucket import Bucket; "
        f"b = Bucket('s3://{name}'); b.write('x', b'1'); print(b.read('x'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("b'1'\n", "")


def test_google_cloud_storage_fails_on_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow._gcsfs")
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    bucket = Bucket("gs://b/x?endpoint_override=127.0.0.1:1&scheme=http")
    started = time.monotonic()
    with pytest.raises(StorageError, match="gs://b/x") as caught:
        bucket.read("y")
    assert time.monotonic() - started < 30
    assert "\n" not in str(caught.value)
