"""What people see on a terminal: one view that fits it, and an answer that says what it is worth."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from hcpr_tune.common.keyboard import DOWN, ENTER, SPACE
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.settings import Foreseen
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.views.status import SORTS, expected_epochs, seconds_left
from hcpr_tune.views.terminal.layout import PARTS, allotted, loss_lines, time_line
from hcpr_tune.views.terminal.live_view import LiveView, ledger_lines, result_table, view_of
from hcpr_tune.views.terminal.options import AT_FIRST, BoardOptions, choosing_lines
from hcpr_tune.views.wording import age, amount, brief, clock, disk, lasting, printable, working
from tests.search.histories import epoch, history_of, job, lost, reached, suggested
from tests.views.kinds import KINDS, kind
from tests.views.recorded import history_like
from tests.written import folded


def printed(thing, width=200, height=50):
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(thing)
    return console.file.getvalue()


def shown(study, history, width=200, height=50, bounded=True, alive=True):
    return printed(replace(view_of(study, history, alive), bounded=bounded), width, height)


@pytest.fixture
def events(small_study):
    params = params_of(small_study.recipe, small_study.space)
    first = [suggested(0, params, "published"), *reached(0, 0, 1, 300), *reached(0, 1, 2, 400), *reached(0, 2, 4, 500)]
    return [
        *first,
        suggested(1, {**params, "hcpr.scale": 5.0}),
        *reached(1, 0, 1, 600),
        suggested(2, params),
        *lost(2, 0, 1),
    ]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_view_shows_the_leaders_within_the_width(small_study, events, width):
    text = shown(small_study, history_of(*events, suggested(3), job(3, 0, 1), last_epoch=4), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "4 of 4 trials: 1 running, 1 completed, 1 stopped, 1 diverged" in text
    assert "gain so far  +10.0 points at epoch 1 over the published recipe (at epoch 4)" in text
    interval = r"\(57-63\)" if width == 80 else r"\(56\.9 to 63\.0\)"
    assert re.search(rf"^    1  stopped +1 60\.0 % {interval} +1 100\.0 % +5 constant$", text, re.MULTILINE)
    assert re.search(r"^    0\* completed +4 50\.0 % ", text, re.MULTILINE)
    assert "* published recipe" in text.splitlines()[-1]
    assert re.search(r"^running      trial 3 +epoch 0 of 1 +starting: imports torch, reads data$", text, re.MULTILINE)
    assert re.search(r"^epoch 1 +2 +1  not known yet \(1 of 5 trials\)$", text, re.MULTILINE)
    assert "ALARM        trial 2 diverged: the loss is not finite" in text


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 10), (80, 24), (80, 12), (120, 30), (200, 50)])
def test_every_kind_of_study_fits_every_terminal(name, width, height):
    study, events = kind(name)
    history = folded(study, events)
    history.losses += ["the checkpoint results/x was damaged\n\x1b[2J" * 4] * 9
    for cursor in (0, None):
        view = replace(view_of(study, history), bounded=True, quits="stop", options=BoardOptions(cursor=cursor))
        lines = printed(view, width, height).splitlines()
        assert len(lines) <= max(height - 1, 4)
        assert all(len(line) <= width and line.isprintable() for line in lines)
    if height >= 24:
        assert any("LOSS" in line for line in lines)
        assert any("ALARM" in line for line in lines) == bool(view_of(study, history).study_status["alarms"])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("width", [80, 200])
def test_the_status_of_every_kind_of_study_fits_the_width_and_cuts_no_words(name, width):
    study, events = kind(name)
    lines = shown(study, folded(study, events), width, 24, bounded=False, alive=False).splitlines()
    assert all(len(line) <= width for line in lines)
    assert not any("…" in line for line in lines)
    assert "0 running" in lines[1]


def test_the_view_exists_before_anything_has_happened(small_study):
    text = shown(small_study, history_of(last_epoch=4))
    assert "0 of 4 trials: 0 running" in text
    assert "about ? left" in text
    assert "no trial has reached a rung" in text


@pytest.fixture
def crowd():
    """64 trials on three hosts, two of which have not been heard of."""
    study = read_study(find_space("default"), [("budget.trials", 500)])
    history = history_like(study, 100, running=64)
    for trial in list(history.running)[2:]:
        history.apply(epoch(trial.number, 1) | {"worker": f"10.0.0.{trial.number % 3}:{trial.number}"})
    return study, history


def test_many_workers_are_told_by_host(crowd):
    lines = shown(*crowd, 80, 24).splitlines()
    begins = next(place for place, line in enumerate(lines) if line.startswith("running "))
    words = [line[13:].partition(",")[0] for line in lines[begins : begins + 4]]
    assert words == ["10.0.0.0: 21 trials", "10.0.0.1: 20 trials", "10.0.0.2: 21 trials", "starting: 2 trials"]
    assert "39 at 1/3, 42 at 1/3, " in lines[begins]
    assert "36 at 0/3, 37 at 0/3" in lines[begins + 3]


def test_one_line_is_left_for_the_workers_where_there_is_hardly_any(crowd):
    assert "running      64 trials on 3 hosts" in shown(*crowd, 80, 13)


def headings(lines):
    """The names of the dimensions above the board, each put together from the two lines that it is folded into."""
    place = next(place for place, line in enumerate(lines) if line.startswith("trial "))
    above, below = lines[place - 1], lines[place]
    begins = list(re.finditer(r"\S+", above))
    ends = list(re.finditer(r"\S+", below))[-len(begins) :]
    assert [one.end() for one in begins] == [one.end() for one in ends]
    return [one[0] + other[0] for one, other in zip(begins, ends, strict=True)]


def shown_lines(study, history, width, **options):
    view = replace(view_of(study, history), bounded=True, **options)
    return printed(view, width, 24).splitlines()


def trials_shown(lines):
    return [int(found[1]) for line in lines if (found := re.match(r" {0,4}(\d+)[*+ ] [a-z]+ ", line))]


@pytest.mark.parametrize(("width", "shown"), [(80, 4), (120, 7), (200, 9)])
def test_values_stand_under_whole_names_as_far_as_they_fit(width, shown):
    study = read_study(find_space("default"))
    lines = shown_lines(study, history_like(study, 10), width)
    names = headings(lines)
    assert len(names) == shown
    assert set(names) <= study.space.keys()
    assert all(len(line) <= width for line in lines)
    assert (f"{shown} of 9 dimensions" in lines[-1]) == (shown < 9)


def test_keys_change_the_order_and_the_dimensions():
    study = read_study(find_space("default"), [("budget.trials", 40)])
    history = history_like(study, 30, running=3)
    names, options, seen = list(study.space), AT_FIRST, []
    for _ in SORTS:
        seen.append(trials_shown(shown_lines(study, history, 80, options=options, quits="stop")))
        options = options.after("s", names, [])
    assert options == AT_FIRST
    by_score, newest, by_state = seen
    best = [trial.number for trial in history.ranked()]
    assert by_score == [number for number in best if number in by_score]
    assert by_score[0] == best[0]
    assert newest[:3] == [29, 28, 27]
    assert by_state[:4] == [27, 28, 29, best[0]]
    assert all(0 in one for one in seen)

    shown = headings(shown_lines(study, history, 80))
    assert "hcpr.square_weight" not in shown
    for key in ("d", *(DOWN,) * names.index("hcpr.square_weight"), SPACE, ENTER):
        options = options.after(key, names, shown)
        if options.cursor is not None:
            lines = shown_lines(study, history, 80, options=options, quits="stop")
            assert sum(line.startswith(">") for line in lines) == 1
            assert not trials_shown(lines)
    chosen = headings(shown_lines(study, history, 80, options=options))
    assert "hcpr.square_weight" in chosen
    for key in ("d", "a", "d"):
        options = options.after(key, names, chosen)
    assert headings(shown_lines(study, history, 80, options=options)) == shown


def test_dimensions_are_chosen_from_a_list_longer_than_the_screen():
    names = [f"a.b{number}" for number in range(50)]
    options = BoardOptions(cursor=0)
    for place in range(60):
        lines = [line.plain for line in choosing_lines(options, names, [], 8)]
        assert len(lines) == 8
        assert any(line.startswith(f"> [ ] {names[place % 50]}") for line in lines)
        options = options.after(DOWN, names, [])


def test_the_bar_is_never_full_while_the_search_goes_on(small_study, events):
    """Also where nothing seems to be left: a verdict may follow."""
    all_done = [*events, suggested(3), *reached(3, 0, 1, 300)]
    for happened in (events, all_done):
        study_status = view_of(small_study, history_of(*happened, last_epoch=4)).study_status
        for width in (40, 80, 200):
            for since in (0.0, 1e6):
                bar = time_line(study_status, since, width).columns[0]._cells[0]
                assert printed(bar, bar.width).count("━") < bar.width


def test_time_is_left_as_long_as_trials_have_not_begun(small_study):
    """Though more epochs were trained than such a search usually takes."""
    trials = [event for number in range(3) for event in (suggested(number), *reached(number, 0, 4, 500))]
    history = history_of(*trials, last_epoch=4)
    assert sum(len(trial.epochs) for trial in history.trials.values()) >= expected_epochs(small_study)
    assert seconds_left(small_study, history) > 0


def test_rooms_are_given_by_importance_and_never_more_than_there_is():
    wanted = [20, 20, 20, 20, 20]
    for room in range(60):
        given = allotted(wanted, room)
        assert sum(given) <= room
        assert all(lines <= part.most for lines, part in zip(given, PARTS, strict=True))
    assert allotted(wanted, 5) == [4, 1, 0, 0, 0]
    assert allotted([2, 0, 0, 0, 1], 50) == [2, 0, 0, 0, 1]


def test_what_happens_in_one_moment_is_seen_to_its_end(small_study, events):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    history = history_of(last_epoch=4)
    view = LiveView(small_study, console, history)
    try:
        assert "starting" in printed(view.screen.drawn())
        for event in [*events, suggested(3), job(3, 0, 1)]:
            history.apply(event)
            view.on_event(event, history)
        assert "trial 3" in printed(view.screen.drawn())
    finally:
        view.close()


def test_a_resumed_search_is_seen_from_the_beginning(small_study, events):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    view = LiveView(small_study, console, history_of(*events, last_epoch=4))
    try:
        assert "60.0 %" in printed(view.screen.drawn())
    finally:
        view.close()


def test_the_answer_names_the_gain_and_that_it_is_optimistic(small_study, events):
    text = printed(result_table(small_study, history_of(*events, last_epoch=4)))
    assert re.search(r"best +1 +1 +60\.0 % \(56\.9 to 63\.0\)", text)
    assert re.search(r"published +0 +4 +50\.0 % \(46\.9 to 53\.1\)", text)
    assert "ALARM        trial 2 diverged: the loss is not finite" in text
    text = " ".join(text.split())
    assert "So far trial 1 has +10.0 points at epoch 1 over the published recipe (at epoch 4); only" in text
    assert "only at the last rung, epoch 4, is it an answer" in text
    assert "chosen from 2 trials by these same images" in text
    assert "optimistic" in text


def test_a_gain_is_the_answer_once_both_have_reached_the_last_rung(small_study, events):
    history = history_of(*events, *reached(1, 1, 4, 650), last_epoch=4)
    words = "+15.0 points at epoch 4 over the published recipe"
    assert f"gain         {words}, optimistic" in shown(small_study, history)
    assert f"Gain: {words}." in printed(result_table(small_study, history))


def test_the_answer_is_plain_where_nothing_beat_the_published_recipe(small_study, events):
    text = printed(result_table(small_study, history_of(*events[:13], last_epoch=4)))
    assert "No trial beat the published recipe, which is trial 0 of the 1 that the best was chosen from" in text


def test_the_answer_warns_of_masked_gradients(small_study):
    events = [suggested(0), *reached(0, 0, 3, 500), *reached(0, 3, 9, 600), *reached(0, 9, 27, 700)]
    events[-2] = {**events[-2], "masking_validation": {"alarms": ["50 steps break 9.0 points more than 10 (above 3)"]}}
    assert "ALARM: the best model may mask its gradients: 50 steps break 9.0 points" in printed(
        result_table(small_study, history_of(*events))
    )


def test_the_answer_says_when_the_published_recipe_diverged(small_study):
    text = printed(
        result_table(small_study, history_of(suggested(0), *lost(0, 0, 3), suggested(1), *reached(1, 0, 3, 600)))
    )
    assert re.search(r"published +0 +- +diverged: the loss is not finite", text)
    assert "Gain" not in text


def test_the_end_says_what_the_plan_had_foreseen(small_study, events):
    history = history_of(*events, {"event": "end", "time": 780.0, "reason": "finished"}, last_epoch=4)
    assert len(ledger_lines(small_study, history)) == 1
    plan = Foreseen(workers=2, hours=0.2, worker_hours=0.3, score=0.62)
    study = replace(small_study, settings=replace(small_study.settings, plan=plan))
    assert ledger_lines(study, history)[-1] == (
        "plan         12 min planned on 2 workers, 13 min taken on 2; 18 worker-minutes planned, 0 worker-minutes "
        "taken;"
        " score 62.0 % planned, 60.0 % measured"
    )


def test_losses_are_counted_where_they_are_many():
    assert [line[13:] for line in loss_lines(["a", "b", "c", "d", "e"], 3)] == ["e", "d", "and 3 before"]
    assert [line[13:] for line in loss_lines(["a", "b"], 2)] == ["b", "a"]


def test_words():
    assert [clock(0), clock(61.9), clock(3601)] == ["0:00", "1:01", "1:00:01"]
    assert [age(one) for one in (None, 0.2, 59, 60, 7300, 200000)] == ["?", "0 s", "59 s", "1 min", "2 h", "2 d"]
    values = (0.0447, 0.000312, 12.345, 1e-5, 123456.0, 8, True, "linear")
    assert [brief(value) for value in values] == ["0.0447", "3.1e-4", "12.3", "1e-05", "1.2e5", "8", "True", "linear"]
    assert printable("a\x1b[2J\nb\u202e") == "a?[2J?b?"
    seconds = (0, 1.2, 89, 90, 754, 5399, 5400, 45000, 130000)
    assert [lasting(one) for one in seconds] == [
        *("0 s", "1 s", "89 s", "1.5 min", "13 min", "90 min", "1.5 h", "12 h", "1.5 d"),
    ]
    assert [amount(one) for one in (0.0, 3.0, 0.034, 3.333, 12.34, 1234.5)] == [
        "0",
        "3",
        "0.03",
        "3.3",
        "12.3",
        "1,234",
    ]
    assert [working(one) for one in (90, 3600, 360000)] == ["1.5 worker-minutes", "1 worker-hours", "100 worker-hours"]
    assert [disk(one) for one in (500, 45e6, 1.5e9, 2e12)] == ["0 kB", "45 MB", "1.5 GB", "2 TB"]
