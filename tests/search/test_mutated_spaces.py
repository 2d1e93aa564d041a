"""Spaces with something odd in them: each is refused in one line, or is searched and reopens as the same study."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli_w

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import StudySpec, study_to_toml
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.search.suggestion.sampler import Suggester, check_sampler
from hcpr_tune.views.forecast import plan_lines
from tests.search.histories import begin, job, reached, suggested
from tests.search.mutated import spaces

SEED = 15
MOST_SECONDS = 20.0
"""For one space, on a busy machine; none takes a quarter of it on a free one."""


SUGGESTIONS = 3


class TooSlow(BaseException):
    """A space took longer than any may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in the middle of what takes longer on the processor, however busy the machine is."""

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def tried(path: Path) -> StudySpec | None:
    """What a dry run and the first suggestions do with the space in a file; None where it is refused in one line."""
    try:
        study = read_study(path)
        if study.settings.sampler.name in SAMPLERS:
            check_sampler(study)
    except InputError as error:
        message = str(error)
        assert "\n" not in message, message
        assert len(message) < 1500, message
        return None
    lines = plan_lines(study)
    assert all("nan" not in line.split() and "inf" not in line.split() for line in lines)
    path.write_text(study_to_toml(study), encoding="utf-8")
    again = read_study(path)
    assert again == study
    assert again.fingerprint == study.fingerprint
    history = History(study.recipe.epochs, study.goal)
    history.apply(begin())
    suggester = Suggester(study)
    for number in range(SUGGESTIONS):
        params, source = suggester.suggest(number, history)
        assert json.loads(json.dumps(params, allow_nan=False)) == params
        assert all(study.space[name].holds(value) for name, value in params.items()), params
        assert all(dimension.active(params) == (name in params) for name, dimension in study.space.items())
        try:
            assert with_params(study.recipe, params)
        except InputError as error:
            # Laws tie two fields at most; a corner of three is told by the trial.
            raise AssertionError(f"trial {number} is no recipe: {error}") from None
        history.apply(suggested(number, params, source))
        *_, last, ended = reached(number, study.rungs[0] - 1, study.rungs[0], 500 + number)
        for event in (job(number, 0, study.rungs[0]), last, ended | {"start": 0}):
            history.apply(event)
    return study


def try_all(folder: Path, first: int, count: int) -> int:
    """Try `count` spaces; returns how many can be searched. Fails with all that went wrong, and how to repeat it."""
    sys.stdout.write(f"seed {SEED}, spaces {first} to {first + count - 1}\n")
    wrong, searched = [], 0
    for number, tables in spaces(SEED, first, count):
        path = folder / "space.toml"
        try:
            text = tomli_w.dumps(tables)
            path.write_text(text, encoding="utf-8")
        except (UnicodeEncodeError, ValueError):  # what no file holds comes by the command line; see below
            continue
        try:
            with within(MOST_SECONDS):
                searched += tried(path) is not None
        except (Exception, TooSlow) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(
                f"space {number}: {type(error).__name__} {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"
            )
    assert not wrong, f"seed {SEED}: " + "\n".join(wrong)
    return searched


@pytest.mark.parametrize("share", range(3))
def test_what_is_accepted_is_searched_and_opens_again_and_the_rest_is_refused_in_one_line(share, tmp_path):
    assert try_all(tmp_path, 50 * share, 50) > 8


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(10))
def test_five_thousand_spaces_are_searched_and_open_again_or_are_refused(share, tmp_path):
    assert try_all(tmp_path, 500 * share, 500) > 100
