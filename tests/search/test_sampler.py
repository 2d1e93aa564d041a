"""Suggestions are a pure function of study, number and record, and Optuna is told the truth about each trial."""

from __future__ import annotations

import dataclasses
import json

import optuna
import pytest
from optuna.trial import TrialState

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import PRIOR
from hcpr_tune.search.spec.dimensions import Choice, Range
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.settings import Sampler
from hcpr_tune.search.spec.study_file import find_space, read_study, study_from_plain
from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapter, common_rung, export
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.search.suggestion.sampler import Suggester, check_sampler
from tests.search.histories import begin, history_of, job, lost, published, reached, suggested

CONDITIONAL = {
    "early_stopping": {"calibration": 1},
    "recipe": {"epochs": 27, "model": {"head": "auto"}},
    "search": {
        "method": {"choices": ["hcpr", "trades"]},
        "hcpr.scale": {"low": 4.0, "high": 16.0, "log": True, "when": {"method": "hcpr"}},
        "trades.beta": {"low": 1.0, "high": 12.0, "when": {"method": ["trades"]}},
        "optimiser.lr@hcpr": {"low": 0.03, "high": 0.2, "log": True, "when": {"method": "hcpr"}},
        "optimiser.lr@trades": {"low": 0.003, "high": 0.1, "log": True, "when": {"method": "trades"}},
        "averaging.half_life": {"low": 0.1, "high": 4.0, "log": True, "extra_values": [0.0]},
    },
}


@pytest.fixture(scope="module")
def default():
    return study_from_plain_file("early_stopping.calibration", 1)


def study_from_plain_file(name, value):
    return read_study(find_space("default"), [(name, value)])


@pytest.fixture(scope="module")
def conditional():
    return study_from_plain(CONDITIONAL, "conditional")


def with_sampler(study, name, startup_trials=3):
    settings = dataclasses.replace(study.settings, sampler=Sampler(name=name, startup_trials=startup_trials))
    return dataclasses.replace(study, settings=settings)


def recorded(study, count, score):
    """A history of `count` trials with first-rung scores out of 1000; one in three is promoted as far as rung 9."""
    events = [published(params_of(study.recipe, study.space)), *reached(0, 0, 3, 400)]
    suggester = Suggester(study)
    for number in range(1, count):
        params, source = suggester.suggest(number, history_of(*events, goal=study.goal))
        events += [suggested(number, params, source), *reached(number, 0, 3, int(score(params)))]
        if number % 3 == 0:
            events += reached(number, 3, 9, int(score(params)))
    return history_of(*events, goal=study.goal)


FIGURES = {
    ("random", 7): {
        "averaging.half_life": 0.0,
        "method": "hcpr",
        "hcpr.scale": 5.071475116618043,
        "optimiser.lr@hcpr": 0.05104646296703609,
    },
    ("random", 20): {
        "averaging.half_life": 0.3387767071042643,
        "method": "hcpr",
        "hcpr.scale": 10.4422843506066,
        "optimiser.lr@hcpr": 0.04424991628132817,
    },
    ("qmc", 7): {
        "averaging.half_life": 0.0,
        "method": "trades",
        "optimiser.lr@trades": 0.004868203384570845,
        "trades.beta": 9.975451226346195,
    },
    ("qmc", 20): {
        "averaging.half_life": 0.133626927087413,
        "method": "hcpr",
        "hcpr.scale": 12.28049407163344,
        "optimiser.lr@hcpr": 0.03929060818865951,
    },
}
"""Points of the conditional space by sampler and trial, from when both drew anew for each point, given all trials."""


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_samplers_that_learn_nothing_give_the_points_that_they_always_gave_and_are_told_nothing(
    conditional, name, monkeypatch
):
    monkeypatch.setattr(OptunaAdapter, "trials", None)
    study, history = with_sampler(conditional, name), history_of()
    suggester = Suggester(study)
    for number in range(21):
        params, source = suggester.suggest(number, history)
        assert number not in (7, 20) or params == FIGURES[name, number]
        for event in (suggested(number, params, source), *reached(number, 0, 3, 37 * number % 1000)):
            history.apply(event)


def test_random_points_are_those_of_optunas_random_sampler(default, conditional):
    kinds = {
        "float": Range(low=-1.5, high=3.0),
        "log": Range(low=0.001, high=0.7, log=True, extra_values=(0.0, 5.0)),
        "whole": Range(low=2, high=5, integer=True),
        "log_whole": Range(low=1, high=64, log=True, integer=True, extra_values=(0,)),
        "one": Choice(choices=("only",)),
        "narrow": Range(low=4.0, high=4.0),
        "some": Choice(choices=("a", "b", "c")),
        "under": Range(low=0.0, high=1.0, when=(("some", ("a", "c")),)),
    }
    history = history_of(published())
    for study in (default, conditional, dataclasses.replace(default, space=kinds)):
        for number in range(1, 40):
            ours, optunas = (
                Suggester(with_sampler(study, name)).suggest(number, history)[0]
                for name in ("random", "optuna.samplers:RandomSampler")
            )
            assert list(ours.items()) == list(optunas.items())
            assert [type(value) for value in ours.values()] == [type(value) for value in optunas.values()]


def near_5(params):
    return 900 - 50 * abs(params["hcpr.scale"] - 5)


@pytest.mark.parametrize("space", ["default", "conditional"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_suggestion_is_pure_and_inside_the_space(name, space, request):
    study = with_sampler(request.getfixturevalue(space), name)
    history = recorded(study, 12, lambda params: 500)
    before = repr(history)
    kept = Suggester(study)
    first = kept.suggest(12, history)
    assert first == kept.suggest(12, history) == Suggester(study).suggest(12, history)
    assert repr(history) == before
    params, source = first
    assert source == name
    assert with_params(study.recipe, params)
    for key, dimension in study.space.items():
        assert (key in params) == dimension.active(params)
        assert key not in params or dimension.holds(params[key])


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_number_or_seed_gives_another_suggestion(default, name):
    study = with_sampler(default, name)
    history = recorded(study, 8, near_5)
    other = dataclasses.replace(study, settings=dataclasses.replace(study.settings, seed=1))
    drawn = [Suggester(one).suggest(number, history)[0] for one, number in ((study, 8), (study, 9), (other, 8))]
    assert len({tuple(params.items()) for params in drawn}) == 3


@pytest.mark.parametrize("name", ["tpe", pytest.param("gp", marks=pytest.mark.long), "nsgaii"])
def test_a_model_learns_from_the_record(default, name):
    study = with_sampler(default, name, startup_trials=8)
    history = recorded(study, 40, near_5)
    late = [trial.params["hcpr.scale"] for trial in history.trials.values() if trial.number >= 25]
    even = [trial.params["hcpr.scale"] for trial in recorded(with_sampler(default, "qmc"), 40, near_5).trials.values()]
    assert sum(abs(scale - 5) for scale in late) / len(late) < 0.7 * sum(abs(scale - 5) for scale in even) / len(even)


def test_parallel_workers_do_not_get_the_same_point_of_a_small_space():
    tables = {
        "early_stopping": {"calibration": 1},
        "sampler": {"name": "tpe", "startup_trials": 2},
        "search": {
            "pace.shape": {"choices": ["constant", "linear", "cosine"]},
            "hcpr.detached": {"choices": [True, False]},
        },
    }
    study = study_from_plain(tables, "small")
    suggester, events = Suggester(study), []
    for number in range(6):
        params, source = suggester.suggest(number, history_of(*events))
        events += [suggested(number, params, source), job(number, 0, 3)]
    assert len({json.dumps(event["params"]) for event in events if event["event"] == "trial"}) == 6


def told(study, *events, **more):
    return OptunaAdapter(study, **more).trials(history_of(*events, goal=study.goal))


def test_optuna_is_told_how_far_each_trial_got(default):
    params = params_of(default.recipe, default.space)
    events = [published(params), *reached(0, 0, 3, 300)]
    events += [suggested(1, params), *reached(1, 0, 3, 500), *reached(1, 3, 9, 600), *reached(1, 9, 27, 550)]
    events += [suggested(2, params), *lost(2, 0, 3, "failed"), suggested(3, params), job(3, 0, 3)]
    events += [
        suggested(4, params),
        *lost(4, 0, 3, "diverged"),
        suggested(5, params),
        *reached(5, 0, 3, 450),
        job(5, 3, 9),
    ]
    trials = told(default, *events)
    assert [trial.state.name for trial in trials] == ["PRUNED", "COMPLETE", "FAIL", "RUNNING", "FAIL", "PRUNED"]
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[1].value == 0.6
    assert trials[1].intermediate_values == {3: 0.5, 9: 0.6, 27: 0.55}
    # Promoted and on its way: what it has reached is known, and does not count against it.
    assert trials[5].intermediate_values == {3: 0.45}
    assert trials[1].params == params


def test_samplers_that_know_no_rungs_are_told_one_fidelity(default):
    params = params_of(default.recipe, default.space)
    events = [published(params), *reached(0, 0, 3, 300), *reached(0, 3, 9, 400), *reached(0, 9, 27, 500)]
    events += [suggested(1, params), *reached(1, 0, 3, 350), suggested(2, params), *lost(2, 0, 3), suggested(3, params)]
    trials = told(default, *events, rungs=False)
    assert [(trial.state.name, trial.values) for trial in trials] == [
        ("COMPLETE", [0.3]),
        ("COMPLETE", [0.35]),
        ("FAIL", None),
        ("RUNNING", None),
    ]
    assert common_rung(history_of(*events)) == 3


def test_two_objectives_and_floors_are_told(default):
    params = params_of(default.recipe, default.space)
    events = [published(params), *reached(0, 0, 3, 300, clean=900)]
    settings = dataclasses.replace(default.settings, objective=("robust_accuracy", "clean_accuracy"))
    (trial,) = told(dataclasses.replace(default, settings=settings), *events, rungs=False)
    assert trial.values == [0.3, 0.9]
    floor = dataclasses.replace(default.settings.constraints, clean_accuracy=0.95)
    (trial,) = told(
        dataclasses.replace(default, settings=dataclasses.replace(default.settings, constraints=floor)), *events
    )
    assert trial.constraints == pytest.approx({"clean_accuracy": 0.05})


def test_a_bad_published_recipe_that_ran_to_the_end_does_not_pass_for_the_best(default):
    params = params_of(default.recipe, default.space)
    events = [published(params), *reached(0, 0, 3, 120), *reached(0, 3, 9, 125), *reached(0, 9, 27, 130)]
    events += [e for n in range(1, 10) for e in (suggested(n, params), *reached(n, 0, 3, 700 + n))]
    trial = told(default, *events)[0]
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {3: 0.12}
    good = [published(params), *reached(0, 0, 3, 900), *reached(0, 3, 9, 910), *reached(0, 9, 27, 920)]
    others = [
        e for n in range(1, 10) for e in (suggested(n, params), *reached(n, 0, 3, 700 + n), *reached(n, 3, 9, 750))
    ]
    others += [e for n in (1, 2) for e in reached(n, 9, 27, 800)]
    assert told(default, *good, *others)[0].state is TrialState.COMPLETE


def test_what_was_told_once_is_told_anew_when_it_changes(default):
    params = params_of(default.recipe, default.space)
    told_so_far, history = (
        OptunaAdapter(default),
        history_of(published(params), *reached(0, 0, 3, 300), suggested(1, params)),
    )
    assert [trial.state.name for trial in told_so_far.trials(history)] == ["PRUNED", "RUNNING"]
    for event in reached(1, 0, 3, 200):
        history.apply(event)
    assert [trial.state.name for trial in told_so_far.trials(history)] == ["PRUNED", "PRUNED"]


def test_calibration_is_spread_and_comes_before_the_sampler():
    study = study_from_plain_file("early_stopping.calibration", 5)
    events, sources = [], []
    for number in range(7):
        params, source = Suggester(study).suggest(number, history_of(*events))
        events += [suggested(number, params, source), *reached(number, 0, 3, 500)]
        sources.append(source)
    assert sources == ["published", *["calibration"] * 4, "tpe", "tpe"]
    scales = sorted(e["params"]["hcpr.scale"] for e in events if e["event"] == "trial" and e["source"] == "calibration")
    # A Sobol sequence puts one of four points into each quarter; the scale is logarithmic from 4 to 16.
    assert [sum(4 * 4 ** (q / 4) <= s < 4 * 4 ** ((q + 1) / 4) for s in scales) for q in range(4)] == [1, 1, 1, 1]


def test_first_points_come_after_the_published_recipe():
    study = study_from_plain_file("first_points", [{"hcpr": {"scale": 12.0}}, {"pace.shape": "linear"}])
    events, sources = [], []
    for number in range(3):
        params, source = Suggester(study).suggest(number, history_of(*events))
        events.append(suggested(number, params, source))
        sources.append(source)
    assert sources == ["published", "first point", "first point"]
    assert events[1]["params"] == params_of(study.recipe, study.space) | {"hcpr.scale": 12.0}


def test_the_published_recipe_is_trial_0_even_where_somebody_asked_for_another_point_first(default):
    point = {**params_of(default.recipe, default.space), "hcpr.scale": 5.0}
    history = history_of({"event": "enqueue", "time": 0.0, "params": point, "request": "1"})
    params, source = Suggester(default).suggest(0, history)
    assert source == "published"
    history.apply(published(params))
    assert Suggester(default).suggest(1, history) == (point, "enqueued")
    history.apply(suggested(1, point, "enqueued"))
    assert Suggester(default).suggest(2, history)[1] == "tpe"


OLD = {"event": "warm_start", "time": 0.0}


def old_trial(study, scale, scores, completed=False, lost=False):
    params = params_of(study.recipe, study.space) | {"hcpr.scale": scale}
    plain = {str(rung): {"robust_accuracy": score, "clean_accuracy": 1.0} for rung, score in scores.items()}
    return {"params": params, "scores": plain, "completed": completed, "lost": lost}


def test_an_earlier_study_gives_its_best_points_first_and_is_told_at_its_fidelity(default):
    trials = [
        old_trial(default, 6.0, {3: 0.9}),
        old_trial(default, 7.0, {3: 0.5, 9: 0.6, 27: 0.7}, completed=True),
        old_trial(default, 9.0, {3: 0.5, 9: 0.6, 27: 0.8}, completed=True),
        old_trial(default, 15.0, {}, lost=True),
    ]
    history = history_of(OLD | {"trials": trials}, published(params_of(default.recipe, default.space)))
    params, source = Suggester(default).suggest(1, history)
    assert (params["hcpr.scale"], source) == (9.0, "warm start")
    states = [trial.state.name for trial in OptunaAdapter(default).trials(history)]
    assert states == ["PRUNED", "COMPLETE", "COMPLETE", "FAIL", "RUNNING"]
    model = with_sampler(default, "tpe", startup_trials=2)
    assert Suggester(model).suggest(1, history)[0] == params


def with_prior(centre, strength):
    tables = {
        "early_stopping": {"calibration": 1},
        "search": {"hcpr.scale": {"low": 4.0, "high": 16.0, "prior": {"centre": centre, "strength": strength}}},
    }
    return study_from_plain(tables, "prior")


def test_a_prior_leads_at_first_and_a_wrong_one_fades():
    study = with_prior(15.0, 0.8)
    history = recorded(study, 60, near_5)
    trials = list(history.trials.values())[1:]
    early = [trial.source for trial in trials[:8]].count(PRIOR)
    late = [trial.source for trial in trials[-30:]].count(PRIOR)
    assert early >= 4
    assert late <= 8
    assert all(trial.params["hcpr.scale"] > 8 for trial in trials if trial.source == PRIOR)
    assert max(near_5(trial.params) for trial in trials) > 870


def test_without_strength_a_prior_says_nothing():
    assert PRIOR not in {trial.source for trial in recorded(with_prior(15.0, 0.0), 20, near_5).trials.values()}


def test_any_optuna_sampler_can_be_named_by_its_path(default):
    study = with_sampler(default, "optuna.samplers:TPESampler")
    check_sampler(study)
    assert Suggester(study).suggest(9, recorded(study, 9, near_5))[1] == "optuna.samplers:TPESampler"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("optuna.samplers:BruteForceSampler", "cannot search this study"),
        ("optuna.samplers:NoSuch", "has no such name"),
        ("no.such.module:f", "importing no.such.module raised"),
        ("builtins:dict", "must return an Optuna sampler, got dict"),
        ("only_one:Sampler", "cannot search this study (objective robust_accuracy, clean_accuracy)"),
    ],
)
def test_a_sampler_that_will_not_do_is_refused_before_anything_starts(default, name, words, tmp_path, monkeypatch):
    code = (
        "import optuna\n"
        "class Sampler(optuna.samplers.RandomSampler):\n"
        "    def sample_relative(self, study, trial, space):\n"
        "        if len(study.directions) > 1: raise ValueError('one objective only')\n"
        "        return {}\n"
    )
    (tmp_path / "only_one.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    several = dataclasses.replace(default.settings, objective=("robust_accuracy", "clean_accuracy"))
    study = with_sampler(dataclasses.replace(default, settings=several), name)
    with pytest.raises(InputError) as caught:
        check_sampler(study)
    assert words in str(caught.value)


@pytest.mark.parametrize("objective", [("robust_accuracy",), ("robust_accuracy", "clean_accuracy")])
def test_an_export_is_read_by_optuna_and_leaves_nothing_running(default, objective, tmp_path):
    study = dataclasses.replace(default, settings=dataclasses.replace(default.settings, objective=objective))
    params = params_of(study.recipe, study.space)
    events = [published(params), *reached(0, 0, 3, 300), *reached(0, 3, 9, 400), *reached(0, 9, 27, 500)]
    events += [suggested(1, params), *reached(1, 0, 3, 350), suggested(2, params), *lost(2, 0, 3)]
    events += [suggested(3, params), job(3, 0, 3), begin()]
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    export(study, history_of(*events, goal=study.goal), storage, "mine", still_running=False)
    again = optuna.load_study(study_name="mine", storage=storage)
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert again.trials[0].params == params
    assert again.trials[0].values == [0.5, 1.0][: len(objective)]


def test_a_late_point_of_the_sequence_is_drawn_by_itself(default, monkeypatch):
    from hcpr_tune.search.suggestion import initial_points

    kept = [initial_points.low_discrepancy_point(default, index) for index in (1, 5, 700)]
    monkeypatch.setattr(initial_points, "MOST_KEPT", 1)
    assert [initial_points.low_discrepancy_point(default, index) for index in (1, 5, 700)] == kept
    monkeypatch.undo()
    assert set(initial_points.low_discrepancy_point(default, 8_000_000)) <= set(default.space)
