"""One session of a study: its lead, its record, and what it was read from."""

from __future__ import annotations

import pytest

from hcpr_tune.errors import InputError, Interrupted, MovedOn, StorageError
from hcpr_tune.execution.runner import recording
from hcpr_tune.search.storage.lease import living_lease_holder
from hcpr_tune.search.storage.studies import check_new, create, reopen


@pytest.fixture
def folder(small_study, tmp_path):
    folder = check_new(tmp_path, "one")
    with recording(create(folder, small_study), 2):
        pass
    return folder


def test_a_session_has_a_beginning_an_end_and_a_lead(folder, small_study, tmp_path):
    study = reopen(tmp_path, "one")
    assert (study.history.ended, study.history.workers) == ("finished", 2)
    with recording(study, 3):
        holder = living_lease_holder(folder.objects)
        assert holder is not None
        with pytest.raises(InputError, match="is being searched by process"), recording(study, 3):
            pass
    assert living_lease_holder(folder.objects) is None
    assert reopen(tmp_path, "one")[2].workers == 3


@pytest.mark.parametrize(
    ("raised", "seen", "reason"),
    [
        (KeyboardInterrupt(), Interrupted, "interrupted"),
        (Interrupted("stopped"), Interrupted, "interrupted"),
        (StorageError("full"), StorageError, "storage"),
        (KeyError("x"), KeyError, "failed"),
    ],
)
def test_how_a_session_ends_is_recorded(folder, tmp_path, raised, seen, reason):
    study = reopen(tmp_path, "one")
    with pytest.raises(seen), recording(study, 3):
        raise raised
    assert reopen(tmp_path, "one")[2].ended == reason
    assert living_lease_holder(folder.objects) is None


def test_a_study_that_another_process_went_on_with_is_read_again(folder, tmp_path):
    early = reopen(tmp_path, "one")
    with recording(reopen(tmp_path, "one"), 5):
        pass
    before = folder.record.read_bytes()
    with (
        pytest.raises(MovedOn, match="was just searched by another process"),
        recording(early, 9),
    ):
        pass
    assert folder.record.read_bytes() == before


def test_damage_that_was_read_is_recorded_as_a_loss(folder, tmp_path):
    data = folder.record.read_bytes()
    folder.record.write_bytes(data[:-5])
    study = reopen(tmp_path, "one")
    with recording(study, 2):
        pass
    _, _, again = reopen(tmp_path, "one")
    assert again.losses == [study.history.damage]
    assert "the last one, was cut off; what it recorded is done again" in again.losses[0]
    assert not again.damage
