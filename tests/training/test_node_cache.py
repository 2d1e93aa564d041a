"""Arrays shared by the processes of a node: made once, held once, never half-written, and results do not change."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hcpr_tune.training.data import dataset as data_module
from hcpr_tune.training.data.dataset import SHARED_FROM, load_data, source_identity, take
from hcpr_tune.training.data.node_cache import KEPT_UNUSED, NodeCache, release
from hcpr_tune.training.data.pool import of_array
from hcpr_tune.training.data.registry import DATASETS
from hcpr_tune.training.data.sources import open_pool
from hcpr_tune.training.loop import initial_state, train
from hcpr_tune.training.recipe import Task

SHAPE = (40, 3, 8, 8)
CONTENT = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)

needs_pss = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say who shares"
)
as_user = pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shared"


class Maker:
    """Gives the content and counts how often it was asked."""

    def __init__(self, content=CONTENT):
        self.content, self.calls = content, 0

    def __call__(self):
        self.calls += 1
        return self.content.copy()


def ask(folder, make, key="key"):
    return NodeCache(folder).array(key, SHAPE, np.uint8, make)


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def is_shared(array):
    return isinstance(array, np.memmap)


PROCESS = """
import sys, time
from pathlib import Path
import numpy as np
from hcpr_tune.training.data.node_cache import NodeCache, release

folder, log = Path(sys.argv[1]), Path(sys.argv[2])

def say(word):
    print(word, flush=True)

def pss():
    for line in open("/proc/self/smaps_rollup", encoding="ascii"):
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])

def make(shape, seconds=0.0):
    with log.open("a") as file:
        file.write("made\\n")
    time.sleep(seconds)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

def array(shape, seconds=0.0):
    return NodeCache(folder).array("key", shape, np.uint8, lambda: make(shape, seconds))

"""


@pytest.fixture
def process(folder, tmp_path):
    """Starts Python processes that run a script after `PROCESS`; what is left is ended, by its id, after the test."""
    started = []

    def start(script):
        command = [sys.executable, "-W", "error", "-c", PROCESS + script, str(folder), str(tmp_path / "log")]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            os.kill(one.pid, signal.SIGKILL)
        one.communicate()


def made(tmp_path):
    log = tmp_path / "log"
    return log.read_text().count("made") if log.exists() else 0


def end(one):
    """Let a process that waits for a line go on to its end."""
    one.communicate("\n", timeout=200)
    assert one.returncode == 0


# What is shared


def test_an_array_is_made_once_and_is_the_same_for_all(folder):
    make = Maker()
    arrays = [ask(folder, make) for _ in range(3)]
    assert make.calls == 1
    for array in arrays:
        assert is_shared(array)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, CONTENT)


def test_other_keys_have_other_arrays(folder):
    first, second = Maker(), Maker(255 - CONTENT)
    np.testing.assert_array_equal(ask(folder, first, "one"), CONTENT)
    np.testing.assert_array_equal(ask(folder, second, "two"), 255 - CONTENT)


def test_torch_takes_the_array_and_a_write_stays_where_it_is(folder):
    # Warnings are errors here: torch would warn of an array that cannot be written to.
    tensor = torch.from_numpy(ask(folder, Maker()))
    tensor[0] = 7
    np.testing.assert_array_equal(ask(folder, Maker()), CONTENT)


def test_processes_that_ask_at_once_make_it_once(process, tmp_path):
    script = "import hashlib; say(hashlib.sha256(array((300, 3, 8, 8), seconds=1.0).tobytes()).hexdigest())"
    started = [process(script) for _ in range(4)]
    expected = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
    digest = hashlib.sha256(expected.tobytes()).hexdigest()
    assert [one.communicate(timeout=200)[0].strip() for one in started] == [digest] * 4
    assert made(tmp_path) == 1


MEGABYTES = 200


@needs_pss
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "a copy each"])
def test_two_processes_hold_it_once(process, tmp_path, shared):
    get = "array(shape)" if shared else "make(shape)"
    script = f"""
shape = ({MEGABYTES}, 2**20)
before = pss()
kept = {get}
assert int(kept.max()) == 255  # every page was looked at
say("holds")
sys.stdin.readline()  # now both hold it
say(pss() - before)
sys.stdin.readline()
"""
    started = [process(script) for _ in range(2)]
    assert [one.stdout.readline() for one in started] == ["holds\n"] * 2
    grown = 0
    for one in started:
        one.stdin.write("\n")
        one.stdin.flush()
        grown += int(one.stdout.readline())
    for one in started:
        end(one)
    if shared:
        assert made(tmp_path) == 1
        assert 0.9 * MEGABYTES < grown / 2**20 < 1.3 * MEGABYTES
    else:
        assert grown / 2**20 > 1.9 * MEGABYTES


# What is not used


def test_a_killed_makers_leftovers_are_ignored(process, folder, tmp_path):
    one = process("array((40, 3, 8, 8), seconds=(say('making'), 600)[1])")
    assert one.stdout.readline() == "making\n"
    while not made(tmp_path):
        time.sleep(0.01)
    os.kill(one.pid, signal.SIGKILL)
    one.wait(timeout=200)
    (folder / "key.part").write_bytes(b"half of it")
    make = Maker()
    np.testing.assert_array_equal(ask(folder, make), CONTENT)
    assert make.calls == 1
    assert "key.part" not in names(folder)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"more")


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_with_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


def another_shape(path):
    np.save(path, CONTENT.reshape(3, 40, 8, 8))


def pickled(path):
    np.save(path, np.array([{"any": "object"}] * 40, dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [cut, lengthen, alter, replace_with_zeros, empty, another_shape, pickled])
def test_a_damaged_file_is_made_anew(folder, damage):
    ask(folder, Maker())
    damage(folder / "key.npy")
    make = Maker()
    np.testing.assert_array_equal(ask(folder, make), CONTENT)
    assert make.calls == 1
    again = Maker()
    assert is_shared(ask(folder, again))
    assert again.calls == 0


def test_a_file_of_another_dtype_or_shape_is_not_used(folder):
    ask(folder, Maker())
    for shape, dtype in (((20, 6, 8, 8), np.uint8), (SHAPE, np.int8)):
        wanted = np.zeros(shape, dtype)
        found = NodeCache(folder).array("key", shape, dtype, wanted.copy)
        assert (found.shape, found.dtype) == (shape, dtype)
        assert not found.any()


def test_the_folder_and_its_files_are_private(folder):
    before = os.umask(0)
    try:
        ask(folder, Maker())
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


def open_to_others(folder):
    folder.mkdir()
    folder.chmod(0o777)


def readable_by_others(folder):
    folder.mkdir()
    folder.chmod(0o755)


def a_link(folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def a_file(folder):
    folder.write_text("")


def below_a_file(folder):
    folder.parent.rmdir()
    folder.parent.write_text("")


@pytest.mark.parametrize("prepare", [open_to_others, readable_by_others, a_link, a_file, below_a_file])
def test_a_folder_that_is_not_private_is_not_used(tmp_path, prepare):
    folder = tmp_path / "parent" / "shared"
    folder.parent.mkdir()
    prepare(folder)
    make = Maker()
    for _ in range(2):
        array = ask(folder, make)
        assert not is_shared(array)
        np.testing.assert_array_equal(array, CONTENT)
    assert make.calls == 2
    assert not list(tmp_path.rglob("key.*"))
    release(folder)


def test_a_folder_of_somebody_else_is_not_used(folder, monkeypatch):
    ask(folder, Maker())
    gc.collect()
    before, own = names(folder), os.getuid()
    if own == 0:
        os.chown(folder, 1, 1)
    else:  # the nearest to another owner that can be had
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
    make = Maker(255 - CONTENT)
    np.testing.assert_array_equal(ask(folder, make), 255 - CONTENT)
    release(folder)
    assert names(folder) == before


def test_a_link_in_the_place_of_a_file_is_not_followed(folder, tmp_path):
    ask(folder, Maker())
    (folder / "key.npy").rename(tmp_path / "other.npy")
    (folder / "key.npy").symlink_to(tmp_path / "other.npy")
    make = Maker()
    assert not is_shared(ask(folder, make))
    assert make.calls == 1


@as_user
def test_a_folder_that_cannot_be_written_is_done_without(folder):
    folder.mkdir(mode=0o500)
    np.testing.assert_array_equal(ask(folder, Maker()), CONTENT)


def test_a_full_disk_leaves_nothing_and_changes_nothing(process, folder):
    # A limit on the size of files stops the write where a full disk would: in the middle.
    one = process(
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
found = array((1000, 1000))
assert not isinstance(found, np.memmap)
say(int((found == make((1000, 1000))).all()))
"""
    )
    assert one.communicate(timeout=200)[0] == "1\n"
    assert names(folder) == ["key.lock"]


def test_what_the_maker_raises_is_passed_on_and_leaves_the_key_free(folder):
    calls = []

    def fail():
        calls.append(1)
        raise FileNotFoundError("an image is gone")

    with pytest.raises(FileNotFoundError, match="an image is gone"):
        ask(folder, fail)
    assert len(calls) == 1
    assert is_shared(ask(folder, Maker()))


@pytest.mark.parametrize("key", ["", "../key", "a/b", "Key", "a.npy"])
def test_a_key_that_is_no_name_is_refused(folder, key):
    with pytest.raises(ValueError, match="lower-case letters, digits and hyphens"):
        ask(folder, Maker(), key)


# What is deleted, and when


def age(folder, seconds):
    then = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (then, then))


def test_release_deletes_what_nobody_holds(folder):
    held, other = ask(folder, Maker(), "held"), ask(folder, Maker(), "other")
    del other
    gc.collect()
    release(folder)
    assert names(folder) == ["held.npy"]
    np.testing.assert_array_equal(held, CONTENT)
    del held
    gc.collect()
    release(folder)
    assert not folder.exists()
    release(folder)


def test_a_tensor_of_the_array_holds_it(folder):
    tensor = torch.from_numpy(ask(folder, Maker()))[3:5]
    gc.collect()
    release(folder)
    assert names(folder) == ["key.npy"]
    np.testing.assert_array_equal(tensor.numpy(), CONTENT[3:5])


@pytest.mark.parametrize("killed", [False, True])
def test_a_user_in_another_process_is_honoured_as_long_as_it_lives(process, folder, killed):
    one = process("kept = array((40, 3, 8, 8)); say('holds'); sys.stdin.readline()")
    assert one.stdout.readline() == "holds\n"
    age(folder, 10 * KEPT_UNUSED)
    NodeCache(folder)
    release(folder)
    assert names(folder) == ["key.npy"]
    if killed:
        os.kill(one.pid, signal.SIGKILL)
        one.wait(timeout=200)
    else:
        end(one)
    release(folder)
    assert not folder.exists()


def test_a_new_cache_deletes_what_nobody_used_for_a_day(folder):
    ask(folder, Maker())
    (folder / "key.part").write_bytes(b"half of it")
    gc.collect()
    age(folder, 0.9 * KEPT_UNUSED)
    NodeCache(folder)
    assert names(folder) == ["key.lock", "key.npy", "key.part"]
    age(folder, 1.1 * KEPT_UNUSED)
    NodeCache(folder)
    assert names(folder) == []


def test_use_keeps_an_old_array(folder):
    ask(folder, Maker())
    gc.collect()
    age(folder, 0.9 * KEPT_UNUSED)
    ask(folder, Maker())
    gc.collect()
    assert time.time() - (folder / "key.npy").stat().st_mtime < 0.5 * KEPT_UNUSED


def test_files_of_others_stay(folder):
    folder.mkdir(mode=0o700)
    (folder / "notes.txt").write_text("mine")
    release(folder)
    assert names(folder) == ["notes.txt"]


def test_a_maker_is_honoured_too(process, folder, tmp_path):
    one = process("kept = array((40, 3, 8, 8), seconds=1.5); say(int(isinstance(kept, np.memmap)))")
    while not made(tmp_path):
        time.sleep(0.01)
    release(folder)
    assert names(folder) == ["key.lock"]
    assert one.communicate(timeout=200)[0] == "1\n"


# The data sets


def write_images(root, seed=0, count=10):
    """A folder of two classes of 12x10 images."""
    drawn = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = drawn.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.bmp")
    return root


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images")


def folder_task(root, **settings):
    return Task(dataset=f"folder:{root}", **settings)


def test_splits_are_shared_from_a_size_on_that_is_worth_a_file(folder):
    pool = of_array(np.zeros((9, 4, 1024, 1024), np.uint8), np.zeros(9), ["one"])
    assert SHARED_FROM == 8 * 4 * 1024 * 1024
    small = take(pool, np.arange(7), NodeCache(folder), "zeros")
    assert not folder.exists()
    large = take(pool, np.arange(1, 9), NodeCache(folder), "zeros")
    assert [name.rpartition(".")[2] for name in names(folder)] == ["lock", "npy"]
    assert small.images.shape == (7, 4, 1024, 1024)
    assert large.images.shape == (8, 4, 1024, 1024)


def test_streamed_splits_are_not_shared(folder, images, monkeypatch):
    monkeypatch.setattr(data_module, "RESIDENT_SHARE", 0.0)
    data = load_data(folder_task(images), NodeCache(folder), shared_from=0)
    assert data.train.images is None
    assert not folder.exists()


def test_shared_images_are_those_of_the_files(folder, images):
    plain = load_data(folder_task(images))
    for _ in range(2):
        shared = load_data(folder_task(images), NodeCache(folder), shared_from=0)
        for name in ("train", "validation"):
            one, other = getattr(plain, name), getattr(shared, name)
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert one.index_hash == other.index_hash
    assert sum(name.endswith(".npy") for name in names(folder)) == 2


def test_the_second_process_decodes_nothing(folder, images, monkeypatch):
    kept = load_data(folder_task(images), NodeCache(folder), shared_from=0)

    def decode(self, positions):
        raise AssertionError("decoded again")

    monkeypatch.setattr("hcpr_tune.training.data.folders.ImageFolder.decode", decode)
    again = load_data(folder_task(images), NodeCache(folder), shared_from=0)
    assert torch.equal(kept.train.images, again.train.images)


def test_a_split_in_memory_lets_go_of_the_data_set(folder):
    for cache in (None, NodeCache(folder)):
        pool = open_pool(Task())
        split = take(pool, np.arange(100), cache, shared_from=0)
        with pytest.raises(AssertionError, match="no longer holds them"):
            split.pool.decode([0])
        assert torch.equal(split.stored(torch.tensor([3, 1])), torch.from_numpy(pool.decode([3, 1])))


def test_the_order_of_the_indices_counts(folder):
    pool = open_pool(Task())
    for indices in (np.arange(50), np.arange(50)[::-1].copy()):
        split = take(pool, indices, NodeCache(folder), "digits", shared_from=0)
        np.testing.assert_array_equal(split.images.numpy(), pool.decode(indices))


def altered_in_place(root):
    """Other pixels in a file of the same size, which then gets its old times back."""
    path = root / "cat" / "003.bmp"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-30, os.SEEK_END)
        file.write(bytes(range(30)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchanged(root):
    one, other = root / "cat" / "001.bmp", root / "cat" / "002.bmp"
    one.rename(root / "aside")
    other.rename(one)
    (root / "aside").rename(other)


def added(root):
    shutil.copy(root / "cat" / "001.bmp", root / "dog" / "more.bmp")


def removed(root):
    (root / "dog" / "004.bmp").unlink()


def linked_class(root):
    """A class that is a link to a folder elsewhere, one of whose images is then altered."""
    (root / "cat").rename(root.parent / "cats")
    (root / "cat").symlink_to(root.parent / "cats")


@pytest.mark.parametrize("change", [altered_in_place, exchanged, added, removed])
def test_a_changed_folder_gives_its_new_images(folder, images, change):
    old = load_data(folder_task(images), NodeCache(folder), shared_from=0)
    identity = source_identity(folder_task(images))
    assert identity == source_identity(folder_task(images))
    # Times of files have the resolution of the kernel's clock.
    time.sleep(0.02)
    change(images)
    assert source_identity(folder_task(images)) != identity
    new = load_data(folder_task(images), NodeCache(folder), shared_from=0)
    expected = load_data(folder_task(images))
    assert torch.equal(new.train.images, expected.train.images)
    assert torch.equal(new.validation.images, expected.validation.images)
    assert len(old.train) == len(old.train.images)


def test_a_file_behind_a_link_is_looked_at_and_a_link_back_ends(images):
    linked_class(images)
    (images / "cat" / "back").symlink_to(images)
    (images / "dog" / "nowhere.bmp").symlink_to(images / "missing.bmp")
    before = source_identity(folder_task(images))
    time.sleep(0.02)
    (images.parent / "cats" / "003.bmp").write_bytes((images / "dog" / "003.bmp").read_bytes())
    assert source_identity(folder_task(images)) != before


def test_the_identity_depends_on_every_field_of_the_task_and_on_the_folder(images, tmp_path):
    base = folder_task(images)
    other = {
        "dataset": f"folder:{write_images(tmp_path / 'other')}",
        "root": "elsewhere",
        "images": 10,
        "image_size": 8,
        "split_seed": 1,
        "validation_fraction": 0.3,
        "test_fraction": 0.3,
        "norm": "l2",
        "epsilon": 0.5,
    }
    assert set(other) == {item.name for item in dataclasses.fields(Task)}
    found = [source_identity(dataclasses.replace(base, **{name: value})) for name, value in other.items()]
    assert len({source_identity(base), *found}) == len(other) + 1


def test_a_relative_folder_is_where_the_process_is(tmp_path, monkeypatch):
    found = []
    for name in ("one", "two"):
        write_images(tmp_path / name / "images")
        monkeypatch.chdir(tmp_path / name)
        found.append(source_identity(folder_task("images")))
    assert found[0] != found[1]


def test_the_test_part_is_not_looked_at(tmp_path):
    root = tmp_path / "parts"
    write_images(root / "train")
    write_images(root / "test")
    before = source_identity(folder_task(root))
    (root / "test" / "cat" / "more.bmp").write_bytes(b"any")
    assert source_identity(folder_task(root)) == before
    (root / "train" / "cat" / "more.bmp").write_bytes(b"any")
    assert source_identity(folder_task(root)) != before


@pytest.mark.parametrize("name", [name for name, spec in DATASETS.items() if spec.files])
def test_torchvisions_files_are_looked_at(tmp_path, name):
    import torchvision

    # Where the data sets' own readers look.
    where = {
        "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
        "cifar10": f"{torchvision.datasets.CIFAR10.base_folder}/data_batch_1",
        "cifar100": f"{torchvision.datasets.CIFAR100.base_folder}/train",
        "svhn": torchvision.datasets.SVHN.split_list["train"][1],
    }
    path = tmp_path / where[name]
    found = [source_identity(Task(name, str(tmp_path)))]
    path.parent.mkdir(parents=True, exist_ok=True)
    for content in (b"one", b"two and more"):
        path.write_bytes(content)
        found.append(source_identity(Task(name, str(tmp_path))))
    assert len(set(found)) == 3


def test_a_training_is_the_same_with_and_without_the_cache(folder, tiny_recipe):
    recipe = dataclasses.replace(tiny_recipe, epochs=2, segment_ends=())
    ends = []
    for cache in (None, NodeCache(folder), NodeCache(folder)):
        data = load_data(recipe.task, cache, shared_from=0)
        state = initial_state(recipe, data)
        epochs = list(train(recipe, data, state))
        ends.append((state.state_dict(), [(epoch.loss, epoch.validation) for epoch in epochs]))
    assert sum(name.endswith(".npy") for name in names(folder)) == 2
    (first, measured), *others = ends
    for other, measured_too in others:
        assert measured == measured_too
        assert all(torch.equal(first["model"][name], other["model"][name]) for name in first["model"])
