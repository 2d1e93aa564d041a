"""The report says what the record says, of any study, and holds all that it needs."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from hcpr_tune.common.intervals import Proportion, difference_interval
from hcpr_tune.search.record.metrics import rung_accuracies
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.views.report.figures import FIGURES
from hcpr_tune.views.report.optuna_study import compared_at
from hcpr_tune.views.report.report import write_report
from hcpr_tune.views.report.report_file import ReportFile
from hcpr_tune.views.summary import gain_points
from tests.search.histories import history_of, reached, suggested
from tests.views.boards import picture
from tests.views.recorded import history_like, recorded


def study_of(trials):
    return read_study(find_space("default"), [("budget.trials", max(1, trials))])


def page_of(folder, trials, **more):
    study = study_of(trials)
    history = history_like(study, trials, **more)
    folder.mkdir(exist_ok=True)
    path = write_report(StoredStudy(StudyFolder(folder), study, history), alive=bool(more.get("running")))
    return study, history, path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def folders(tmp_path):
    """Where studies of the tests lie."""
    for name in ("my runs/k", "h"):
        (tmp_path / name).mkdir(parents=True)


class Text(HTMLParser):
    """The text outside scripts and styles, by the section that it stands in, without line breaks between elements."""

    def __init__(self, page):
        super().__init__()
        self.sections, self._in, self._skip, self.ids = {"": ""}, "", 0, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if "id" in named:
            self.ids.append(named["id"])
        if tag == "section":
            self._in = named["id"]
            self.sections[self._in] = ""
        self._skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._skip:
            self.sections[self._in] += data.strip("\n")


def test_the_answer_stands_first_with_its_numbers(tmp_path):
    for name in ("recipe.toml", "model.safetensors"):
        (tmp_path / "many" / "best").mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / "best" / name).touch()
    study, history, page = page_of(tmp_path / "many", 60)
    text = Text(page).sections
    best, published = history.best_trial, history.trials[0]
    accuracies = rung_accuracies(best)
    gain = gain_points(history)
    low, high = difference_interval(
        accuracies["robust_accuracy_validation"], rung_accuracies(published)["robust_accuracy_validation"]
    )
    assert list(text)[:2] == ["", "answer"]
    assert f"Trial {best.number}: {accuracies['robust_accuracy_validation']} robust accuracy" in text["answer"]
    none = ", which includes zero" if low <= 0 else ""
    at = f"at epoch {history.last_epoch}"
    said = f"Gain over the published recipe {at}: {gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}{none})."
    assert said in text["answer"]
    assert "optimistic" in text["answer"]
    assert f"evaluate --model {tmp_path / 'many' / 'best'} --attack autoattack" in text["answer"]
    assert f"verdict many --storage {tmp_path} --test" in text["answer"]
    assert "--split test" not in text["answer"], "a verdict opens the test images, on the record"
    assert f"train --recipe {tmp_path / 'many' / 'best' / 'recipe.toml'}" in text["answer"]
    assert f"tune --resume many --storage {tmp_path}" in text["answer"]
    for name in study.space:
        assert name in text["answer"]


@pytest.mark.parametrize("trials", [0, 1, 16])
def test_every_section_is_there_and_every_figure_says_something(trials, tmp_path):
    _, _, page = page_of(tmp_path, trials)
    read = Text(page)
    wanted = ["answer", "alarms", *FIGURES, "trials", "reproduce"]
    assert [name for name in read.sections if name] == wanted
    assert all(len(read.sections[name]) > 20 for name in wanted)
    assert len(set(read.ids)) == len(read.ids)
    for link in re.findall(r'<a href="#([a-z]+)"', page):
        assert link in read.ids


def test_the_table_has_every_trial_in_order_of_rank(tmp_path):
    study, history, page = page_of(tmp_path, 40)
    rows = re.findall(r"<tr[^>]*>(<td.*?)</tr>", page.partition('class="sortable"')[2])
    cells = [
        [html.unescape(cell).replace("\N{NO-BREAK SPACE}", " ") for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in rows
    ]
    ranked = history.ranked()
    assert [int(row[1]) for row in cells[: len(ranked)]] == [trial.number for trial in ranked]
    assert sorted(int(row[1]) for row in cells) == list(range(40))
    assert cells[0][3] == str(rung_accuracies(ranked[0])["robust_accuracy_validation"])
    assert len(cells[0]) == 8 + len(study.space) + 1


def test_alarms_are_named(tmp_path):
    _, history, page = page_of(tmp_path, 30)
    text = Text(page).sections["alarms"]
    assert any(trial.lost for trial in history.trials.values())
    assert "trial 3 may mask its gradients: 50 steps break 9.0 points more than 10" in text
    assert "RuntimeError: <b>no</b> & such" in text


def test_no_alarm_is_claimed_of_what_was_not_looked_at(tmp_path):
    _, _, page = page_of(tmp_path / "none", 0)
    assert "Nothing was trained yet" in Text(page).sections["alarms"]
    study = study_of(1)
    params = params_of(study.recipe, study.space)
    history = history_of(suggested(0, params, "published"), *reached(0, 0, 3, 500))
    (tmp_path / "one").mkdir()
    path = write_report(StoredStudy(StudyFolder(tmp_path / "one"), study, history))
    said = Text(path.read_text(encoding="utf-8")).sections["alarms"]
    assert "None" not in said
    assert "No model was checked for masked gradients: no trial has reached its last epoch." in said


def test_where_all_failed_the_page_says_why(tmp_path):
    _, _, page = page_of(tmp_path, 8, lost=1.0)
    text = Text(page).sections
    assert "No trial reached its first rung" in text["answer"] or "published" in text["answer"]
    assert "the loss is not finite at epoch 2" in text["alarms"]


def test_a_running_search_says_so(tmp_path):
    _, _, page = page_of(tmp_path, 16, running=3)
    assert "This search was still running" in Text(page).sections[""]
    assert "status" in Text(page).sections["answer"]


def test_nothing_in_a_study_becomes_markup(tmp_path):
    root = tmp_path / "<script>alert(1)"
    study, _, page = page_of(root, 12)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<i>nine" not in page  # the name of a class
    assert page.count("</script>") == 4
    assert study.settings.description in html.unescape(page)


def test_nothing_is_fetched(tmp_path):
    _, _, page = page_of(tmp_path, 5)
    ours = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["']?(?!#|data:)[^\s"'>]+""", ours)
    assert "http" not in re.sub(r"http-equiv", "", ours)
    assert "default-src 'none'" in page


def test_500_trials_stay_below_7_mb(tmp_path):
    _, _, page = page_of(tmp_path, 500)
    assert len(page.encode()) < 7e6


def test_curves_are_thinned_and_say_so(tmp_path, monkeypatch):
    from hcpr_tune.views.report.figures import progress

    monkeypatch.setattr(progress, "MOST_CURVE_POINTS", 100)
    study = study_of(60)
    history = history_like(study, 60)
    shown = progress.curves(study, history)
    drawn = sum(y is not None for trace in shown.figure.data for y in trace.y)
    evaluated = sum(
        "robust_correct_validation" in event for trial in history.trials.values() for event in trial.epochs.values()
    )
    rungs = sum(len(trial.rungs) for trial in history.trials.values())
    assert rungs <= drawn < evaluated
    assert "of each trial has all" in shown.says


def test_the_figures_draw_what_was_recorded():
    study = study_of(30)
    history = history_like(study, 30)
    draw = {name: function(study, history).figure for name, (_, function) in FIGURES.items()}
    shares = {
        point[0]: y
        for trace in draw["accuracies"].data
        if trace.customdata is not None
        for point, y in zip(trace.customdata, trace.y, strict=True)
    }
    assert shares == {trial.number: pytest.approx(trial.score) for trial in history.ranked()}
    assert len(draw["parallel"].data[0].dimensions) == 3 + len(study.space)
    assert sorted(draw["parallel"].data[0].dimensions[0].values) == pytest.approx(sorted(shares.values()))
    assert all(sum(trace.x) == pytest.approx(1, abs=0.01) for trace in draw["importance"].data)


def test_slices_stand_in_rows_of_three_coloured_by_trial():
    study = study_of(30)
    history = history_like(study, 30)
    figure = FIGURES["slices"][1](study, history).figure
    axes = [figure.layout[f"xaxis{index + 1 if index else ''}"] for index in range(len(study.space))]
    assert sorted(axis.title.text for axis in axes) == sorted(study.space)
    lefts = [axis.domain[0] for axis in axes]
    assert lefts[:3] == pytest.approx([0, 1 / 3, 2 / 3])
    assert lefts == pytest.approx([*lefts[:3]] * 3)
    tops = [figure.layout[f"yaxis{index + 1 if index else ''}"].domain for index in (0, 3, 6)]
    assert tops[0][0] > tops[1][1] > tops[1][0] > tops[2][1] > tops[2][0] == pytest.approx(0)
    for trace in figure.data:
        assert {history.trials[number].number for number in trace.marker.color} <= history.trials.keys()
        shares = [history.trials[number].scores[3]["robust_accuracy"] for number in trace.marker.color]
        assert list(trace.y) == pytest.approx(shares)


def test_importance_finds_the_dimension_that_the_scores_follow():
    study = study_of(200)
    history = history_like(study, 200)
    figure = FIGURES["importance"][1](study, history).figure
    assert figure.data[0].y[-1] == "hcpr.scale"


def test_a_pareto_study_names_its_front(tmp_path):
    study = read_study(find_space("pareto"), [("budget.trials", 12)])
    history = history_like(study, 12)
    page = write_report(StoredStudy(StudyFolder(tmp_path), study, history)).read_text(encoding="utf-8")
    members = history.best_trials
    text = Text(page).sections
    assert f"of the {len(members)} trials on the Pareto front" in text["answer"]
    assert all(f"front, trial {trial.number}" in text["answer"] for trial in members) or len(members) == 1
    assert f"{len(members)} of them form the Pareto front: no other trial beats them" in text["accuracies"]
    assert "no other trial scored higher" not in text["answer"]


def test_a_killed_search_says_so_and_how_it_goes_on(tmp_path):
    study = study_of(16)
    history = history_like(study, 16, running=3)
    text = Text(
        write_report(StoredStudy(StudyFolder(tmp_path / "my runs" / "k"), study, history)).read_text(encoding="utf-8")
    ).sections
    assert "its process died" in text[""]
    assert "3 interrupted" in text[""]
    assert f"tune --resume k --storage '{tmp_path / 'my runs'}'" in text["answer"]
    assert "--trials" not in text["answer"]
    assert "train --recipe" not in text["answer"]  # there is none yet
    assert "running" not in text["trials"]


def test_a_spent_budget_is_what_the_way_on_raises(tmp_path):
    study = read_study(find_space("default"), [("budget.trials", 12), ("budget.hours", 0.001)])
    history = history_like(study, 12)
    text = Text(
        write_report(StoredStudy(StudyFolder(tmp_path / "h"), study, history)).read_text(encoding="utf-8")
    ).sections
    assert "tune --resume h" in text["answer"]
    assert "--hours +1" in text["answer"]


def test_a_floor_that_nothing_reaches_comes_first(tmp_path):
    study = read_study(find_space("default"), [("budget.trials", 12), ("constraints.clean_accuracy", 1.0)])
    text = Text(
        write_report(StoredStudy(StudyFolder(tmp_path), study, history_like(study, 12))).read_text(encoding="utf-8")
    ).sections
    assert text["answer"].startswith("AnswerNo trial satisfies the constraint of at least 1 clean accuracy")


def test_what_a_study_says_is_no_place_for_a_part_of_the_page(tmp_path):
    study = read_study(find_space("default"), [("description", "about {{MAIN}} and {{PLOTLY}}")])
    page = write_report(StoredStudy(StudyFolder(tmp_path), study, history_like(study, 3))).read_text(encoding="utf-8")
    assert page.count('<section id="answer"') == 1
    assert "about {{MAIN}} and {{PLOTLY}}" in page


def test_a_name_that_is_no_text_is_written_as_it_can_be(tmp_path):
    study = study_of(8)
    history = history_like(study, 8)
    history.model_inputs["class_names"] = ["\udcff"] * 10
    assert write_report(StoredStudy(StudyFolder(tmp_path), study, history)).stat().st_size > 4e6


def test_classes_are_named_and_those_that_a_picture_cannot_name_are_explained_below_it(tmp_path):
    study, folder = study_of(8), StudyFolder(tmp_path)
    history = history_like(study, 8)
    history.model_inputs["class_names"] = ["Größe", "猫", *map(str, range(2, 9)), "<i>nine</i>"]
    best = history.best_trial
    folder.trial(best.number).mkdir(parents=True)
    (folder.trial(best.number) / f"examples_epoch_{best.best_rung:04d}.png").write_bytes(picture())
    sections = Text(write_report(StoredStudy(folder, study, history)).read_text(encoding="utf-8")).sections
    assert sections["examples"].endswith("Class 1 is 猫.")
    labels = FIGURES["pairs"][1](study, history).figure.data[0].y
    assert any("猫" in label for label in labels)
    assert all(word in {"Größe", "猫", *map(str, range(2, 9)), "&lt;i&gt;nine&lt;/i&gt;"} for label in labels
               for word in label.split(" → "))  # fmt: skip


def test_trainings_of_their_own_are_not_joined():
    study = read_study(find_space("default"), [("budget.trials", 2), ("lr_schedule.mode", "restarted")])
    events = [suggested(0), *reached(0, 0, 3, 500), *reached(0, 0, 9, 600), *reached(0, 0, 27, 700)]
    trace = next(
        one for one in FIGURES["curves"][1](study, history_of(*events)).figure.data if one.customdata is not None
    )
    assert list(trace.x) == [3, None, 12, None, 39, None]
    assert [point[3] for point in trace.customdata if point[0] is not None] == [3, 9, 27]


def test_what_was_asked_beside_the_file_is_told(tmp_path):
    study = study_of(20)
    history = history_like(study, 20)
    stopped = next(trial.number for trial in history.trials.values() if trial.state == "stopped")
    for event in (
        {"event": "extend", "time": 1e6, "budget": {"trials": 30}},
        {"event": "audit", "time": 1e6, "trials": [stopped]},
    ):
        history.apply(event)
    text = Text(write_report(StoredStudy(StudyFolder(tmp_path), study, history)).read_text(encoding="utf-8")).sections
    assert "its budget was set to trials 30" in text["reproduce"]
    assert f"for the audit: {stopped}" in text["reproduce"]
    assert "Audit: 0 of 0 stopped trials" in text["costs"]


def test_importance_looks_at_the_latest_rung_with_enough_trials():
    study = study_of(200)
    history = history_like(study, 200)
    reach = {rung: sum(rung in trial.rungs for trial in history.trials.values()) for rung in study.rungs}
    assert reach[9] >= 5 * len(study.space) > reach[27]
    shown = FIGURES["importance"][1](study, history)
    unknown = "rank correlation with the final scores: not known yet"
    assert f"over {reach[9]} trials at epoch 9 of 27 ({unknown})" in shown.says
    scored = [
        event
        for n in range(8)
        for event in (suggested(n), *reached(n, 0, 9, 300 + 40 * n), *reached(n, 9, 27, 500 + 40 * n))
    ]
    assert compared_at(history_of(*scored), 9, study.rungs) == (
        "at epoch 9 of 27 (rank correlation with the scores at epoch 27: 1.00)"
    )


def test_the_report_comes_at_the_end_of_a_search_that_was_not_interrupted(tmp_path):
    study = study_of(3)
    for reason, there in (("interrupted", False), ("finished", True)):
        events = [*list(recorded(study, 3))[1:-1], {"event": "end", "time": 999.0, "reason": reason}]
        history = history_of(*events)
        view = ReportFile(StudyFolder(tmp_path / reason), study, "hcpr_tune")
        (tmp_path / reason).mkdir()
        for event in events:
            view.on_event(event, history)
        assert (tmp_path / reason / "report.html").exists() is there
        assert str(tmp_path / reason / "report.html") == view.words or not there


def test_a_page_that_cannot_be_written_costs_no_answer(tmp_path):
    (tmp_path / "report.html").mkdir()
    study = study_of(1)
    view = ReportFile(StudyFolder(tmp_path), study, "hcpr_tune")
    view.on_event({"event": "end", "reason": "finished"}, history_like(study, 1))
    assert "IsADirectoryError" in view.words


def test_a_report_that_cannot_be_drawn_does_not_end_the_search(tmp_path, monkeypatch):
    def broken(study, history):
        raise RuntimeError("no picture")

    monkeypatch.setitem(FIGURES, "curves", ("Curves", broken))
    study = study_of(1)
    view = ReportFile(StudyFolder(tmp_path), study, "hcpr_tune")
    view.on_event({"event": "end", "reason": "finished"}, history_like(study, 1))
    assert view.words == "could not be drawn (RuntimeError: no picture)"


def test_the_costs_are_held_against_the_plan(tmp_path):
    given = [("budget.trials", 12), ("plan.workers", 2), ("plan.hours", 0.5), ("plan.epochs", 90), ("plan.use", 0.8)]
    study = read_study(find_space("default"), given)
    history = history_like(study, 12)
    page = write_report(StoredStudy(StudyFolder(tmp_path), study, history)).read_text(encoding="utf-8")
    text = Text(page).sections["costs"]
    epochs = sum(len(trial.epochs) for trial in history.trials.values())
    assert f"epochs trained90{epochs}" in text
    assert "wall-clock time30 min" in text
    assert f"score of the best trialnot known{100 * history.best_trial.score:.1f} %" in text
    assert "optimistic in comparison" in text
    unplanned = write_report(StoredStudy(StudyFolder(tmp_path), study_of(3), history_like(study_of(3), 3)))
    assert "Compared with the plan" not in unplanned.read_text(encoding="utf-8")


def test_the_interval_of_a_difference_is_newcombe_s():
    # Newcombe (1998), table II, (a): 56 of 70 against 48 of 80.
    low, high = difference_interval(Proportion(56, 70), Proportion(48, 80))
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_pictures_of_many_trials_draw_a_bounded_number_and_say_so(small_study, monkeypatch):
    from hcpr_tune.views.report.figures import shown as pictures

    monkeypatch.setattr(pictures, "MOST_DRAWN", 40)
    history = history_like(small_study, 120)
    words = re.compile(r"Of (\d+) trials 40 are shown: the best, the front, the published recipe, and a fixed sample")
    for name in ("accuracies", "curves", "parallel"):
        assert words.search(FIGURES[name][1](small_study, history).says), name
    scored = history.ranked()
    drawn = pictures.few(small_study, history, scored)
    assert drawn == pictures.few(small_study, history, scored)
    assert len(drawn) == 40 == len({trial.number for trial in drawn})
    assert {history.best_trial.number, 0, *(one.number for one in history.best_trials)} <= {
        trial.number for trial in drawn
    }
    lines = FIGURES["parallel"][1](small_study, history).figure.data[0].dimensions[0]["values"]
    assert len(lines) == 40
    cloud = FIGURES["accuracies"][1](small_study, history).figure.data
    assert sum(len(one.customdata) for one in cloud if one.customdata is not None) == 40
    assert pictures.few(small_study, history, scored[:7]) == scored[:7]
    assert pictures.few_words(7, 7) == ""
