"""The progress bar of a search in a notebook."""

from __future__ import annotations

import re

from hcpr_tune.search.record.history import History
from hcpr_tune.views import notebook
from hcpr_tune.views.notebook import TrialBar
from hcpr_tune.views.terminal.search_output import TerminalProgress, progress_of
from tests.views.recorded import recorded


def test_the_bar_tells_trials_and_the_best_one_and_is_full_only_at_the_end(small_study, capsys, monkeypatch):
    monkeypatch.setattr(notebook, "REDRAWN_SECONDS", 0.0)
    history, shares = History(small_study.recipe.epochs, small_study.goal), []
    bar = TrialBar(small_study, history)
    for event in recorded(small_study, 4):
        if history.apply(event):
            bar.on_event(event, history)
        shares.append(bar._bar.n / bar._bar.total)
    bar.close()
    assert all(share < 1 for share in shares[:-1])
    assert shares[-1] == 1
    drawn = capsys.readouterr().err.split("\r")
    assert any(re.search(r" 0%\|.*\| 0/4 .*0 epochs", line) for line in drawn)
    assert re.search(r"100%\|.*\| 4/4 \[.*16 epochs, best \d\d\.\d % \(trial \d\), gain [+-]\d+\.\d points", drawn[-1])


def test_outside_of_a_notebook_nothing_is_drawn():
    assert isinstance(progress_of(None), TerminalProgress)
    assert progress_of(None)._quiet
    assert not progress_of(False)._quiet
