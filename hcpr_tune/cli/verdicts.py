"""A verdict that is run from the command line: the small one at the end of a search, or a full one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.console import print_lines
from hcpr_tune.common.shell import same_again, typed
from hcpr_tune.common.text import named

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.execution.capacity import Share
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.verdict.plan import Plan


def run_verdict(
    folder: StudyFolder,
    study: StudySpec,
    history: History,
    plan: Plan,
    share: Share,
    console: Console,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Do what the plan asks for and is not done yet, write everything into the verdict's folder, and return it as plain
    values.
    """
    from hcpr_tune.verdict.progress import Progress, news_words
    from hcpr_tune.verdict.run import carry_out
    from hcpr_tune.views.terminal.event_log import tell

    def say(news: dict[str, Any]) -> None:
        if options.json:
            tell(console, news)
        elif not options.quiet:
            print_lines(console, [news_words(news)])

    return carry_out(folder, study, history, plan, share, same_again(), typed("hcpr_tune"), [Progress(plan, say)])


def small_verdict(
    folder: StudyFolder, study: StudySpec, history: History, share: Share, console: Console, options: argparse.Namespace
) -> dict[str, Any] | None:
    """What a finished search ends with; None where it is too long for one, or none is wanted."""
    from hcpr_tune.verdict.plan import small_plan
    from hcpr_tune.views.verdicts import read_verdict

    plan, earlier = small_plan(study, history), read_verdict(folder.root)
    # A full verdict from before is not overwritten by a small one.
    if plan is None or history.ended != "finished" or (earlier is not None and earlier["size"] == "full"):
        return None
    if not options.quiet and not options.json:
        names = " and ".join(candidate.name for candidate in plan.candidates)
        images, most = plan.images, f"at most {plan.seconds:g} seconds"
        words = f"{names}, a fresh seed each, AutoAttack on {images} validation images, {most}"
        print_lines(console, [f"verdict      {words}"])
    history.bytes_read = 0  # this process has written it until now
    judged = run_verdict(folder, study, history, plan, share, console, options)
    write_report(folder, study, history)
    return judged


def write_report(folder: StudyFolder, study: StudySpec, history: History) -> str:
    """Draw the study's report anew, which has the verdict in it, and say where it is."""
    from hcpr_tune.views.report import report

    try:
        return str(report.write_report(folder, study, history, program=typed("hcpr_tune")))
    except Exception as error:  # a page that cannot be drawn must not lose a verdict
        return f"could not be drawn ({named(error)})"
