"""A location is cut at the `/` of its path only, never inside the options of a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.common.buckets.location import Location
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.storage.lease import LeaseHolder, refusal
from hcpr_tune.views.next_commands import about

OPTIONS = "endpoint_override=http://127.0.0.1:9000/x&scheme=http"


@pytest.mark.parametrize(
    ("text", "parent", "name"),
    [
        ("s3://b/p/one", "s3://b/p", "one"),
        ("s3://b/p/one/", "s3://b/p", "one"),
        (f"s3://b/p/one?{OPTIONS}", f"s3://b/p?{OPTIONS}", "one"),
        (f"s3://b/p/one/?{OPTIONS}/", f"s3://b/p?{OPTIONS}/", "one"),
        (f"s3://b/one?{OPTIONS}", f"s3://b?{OPTIONS}", "one"),
        (f"s3://b?{OPTIONS}", f"s3://b?{OPTIONS}", ""),
        ("results/one", "results", "one"),
        ("results/one/", "results", "one"),
        ("why?/one", "why?", "one"),
        ("/one", "/", "one"),
        ("one", ".", "one"),
    ],
)
def test_a_location_has_a_parent_and_a_name(text, parent, name):
    location = Location.parse(text)
    assert (str(location.parent), location.name) == (parent, name)


@pytest.mark.parametrize("text", [f"s3://b/p?{OPTIONS}", "s3://b", f"gs://b?{OPTIONS}", "results", "/", "."])
def test_a_child_lies_in_its_parent(text):
    child = Location.parse(text).child("one")
    if text != ".":
        assert child.parent == Location.parse(text)
    assert Location.parse(str(child)) == child
    assert child.name == "one"


def test_a_bucket_and_its_location_have_the_same_children():
    url = f"s3://b/p?{OPTIONS}"
    assert Bucket(url).child("one").url == str(Location.parse(url).child("one"))


def test_commands_about_a_study_in_a_bucket_name_its_storage_with_the_options():
    storage = f"s3://b/p?{OPTIONS}"
    folder = StudyFolder(Path("results/one"), Bucket(storage).child("one"))
    assert about("status", folder).endswith(f"status one --storage '{storage}'")
    holder = LeaseHolder("host", 1, "m", "began", "t", 0.0)
    assert f"stop one --storage '{storage}'" in str(refusal("--resume one", holder, folder.address))
