"""`--log-to optuna`: a live journal of Optuna in the study's folder, which `optuna-dashboard` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcpr_tune.common.text import first_line
from hcpr_tune.search.record.history import Event, History, Trial
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.spec.study import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState

NAME = "optuna.log"
"""In the study's folder."""


class OptunaJournal:
    """A listener. Optuna cannot take up a trial that has ended, so those that were stopped at a rung stay RUNNING until
    the search ends: they may be promoted. If writing fails, the search continues and `trouble` says why.
    """

    def __init__(self, stored: StoredStudy) -> None:
        self.trouble = ""
        self._spec, self._several = stored.spec, len(stored.spec.settings.objective) > 1
        self._ids: dict[int, int] = {}
        self._told: dict[int, int] = {}
        """The highest rung that Optuna knows, by trial."""
        self._ended: set[int] = set()
        try:
            self._open(stored)
            for trial in stored.history.trials.values():
                self._bring(trial)
        except Exception as error:
            self._note(error)

    def _open(self, stored: StoredStudy) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        from hcpr_tune.search.suggestion.optuna_adapter import directions

        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(stored.folder.root / NAME)))
            study = optuna.create_study(
                study_name=stored.name, storage=self._storage, directions=directions(self._spec), load_if_exists=True
            )
        finally:
            optuna.logging.set_verbosity(level)
        self._study_id = study._study_id
        for known in study.get_trials(deepcopy=False):
            number = int(known.user_attrs["trial"])
            self._ids[number] = known._trial_id
            self._told[number] = max(known.intermediate_values, default=0)
            if known.state.is_finished():
                self._ended.add(number)

    def on_event(self, event: Event, history: History) -> None:
        if self.trouble:
            return
        try:
            if event["event"] == "trial" or (event["event"] == "epoch" and event["is_rung"]):
                self._bring(history.trials[event["trial"]])
            elif event["event"] == "job_end":
                self._end(history.trials[event["trial"]])
            elif event["event"] == "end" and event["reason"] == "finished":
                for trial in history.trials.values():
                    self._end(trial, over=True)
        except Exception as error:  # a full disk, or a file that something else has written to
            self._note(error)

    def close(self) -> None:
        pass

    def _note(self, error: Exception) -> None:
        self.trouble = f"the journal {NAME} stopped: {first_line(error)}; --resume with --log-to optuna completes it"

    def _bring(self, trial: Trial) -> None:
        """Add what Optuna does not know of a trial."""
        number = trial.number
        if number not in self._ids:
            self._ids[number] = self._storage.create_new_trial(self._study_id, template(self._spec, trial))
            self._told[number] = 0
        if number in self._ended:
            return
        for rung in sorted(trial.rungs):
            if rung > self._told[number] and not self._several:
                (value,) = self._spec.goal.values(trial.scores[rung])
                self._storage.set_trial_intermediate_value(self._ids[number], rung, value)
                self._told[number] = rung
        self._end(trial)

    def _end(self, trial: Trial, over: bool = False) -> None:
        """Close a trial that has ended; if the search is `over`, any other too."""
        if trial.number in self._ended or not (trial.ended or over):
            return
        state, values = end_of(self._spec, trial)
        self._storage.set_trial_state_values(self._ids[trial.number], state, values)
        self._ended.add(trial.number)


def template(spec: StudySpec, trial: Trial) -> FrozenTrial:
    """A running trial with its values."""
    from optuna.trial import TrialState, create_trial

    from hcpr_tune.search.suggestion.optuna_adapter import distributions_of, to_optuna

    return create_trial(
        state=TrialState.RUNNING,
        params=to_optuna(trial.params, spec.space),
        distributions=distributions_of(trial.params, spec.space),
        user_attrs={"trial": trial.number, "source": trial.source, "replicate_of": trial.replicate_of},
    )


def end_of(spec: StudySpec, trial: Trial) -> tuple[TrialState, list[float] | None]:
    """How Optuna calls the end of a trial, and its values."""
    from optuna.trial import TrialState

    if trial.lost or not trial.rungs:
        return TrialState.FAIL, None
    values = list(spec.goal.values(trial.scores[trial.best_rung]))
    if trial.status == "completed":
        return TrialState.COMPLETE, values
    # Optuna has no pruning with several objectives, and then no values of a pruned trial.
    return TrialState.PRUNED, None if len(values) > 1 else values
