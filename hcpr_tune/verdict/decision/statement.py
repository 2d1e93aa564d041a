"""What a small verdict can state when its time is over, and why there is none where there is none."""

from __future__ import annotations

from dataclasses import replace

from hcpr_tune.training.attacks.cascade import CASCADES
from hcpr_tune.verdict.decision.selection import common_chunks, living, select
from hcpr_tune.verdict.plan import Plan
from hcpr_tune.verdict.state import State


def reached(plan: Plan, state: State) -> Plan:
    """The small plan as far as it was carried out: its cascade is the longest that a chunk went through on all.

    A full plan, and one of which no attack was carried out on all, is returned as it is.
    """
    if plan.size == "full":
        return plan
    names = list(CASCADES)
    for cascade in reversed(names[: names.index(plan.cascade) + 1]):
        shorter = replace(plan, cascade=cascade)
        models = [living(shorter, state, candidate, plan.seeds) for candidate in plan.candidates]
        if all(models) and common_chunks(shorter, state, [one for of in models for one in of], "validation"):
            return shorter
    return plan


def no_statement(plan: Plan, state: State) -> str:
    """Why a small verdict, of a plan as far as it was `reached`, compares nothing; empty if it does."""
    within = f"within {plan.seconds:g} seconds"
    for candidate in plan.candidates:
        known = [state.models[one.id] for one in plan.models(candidate, plan.seeds) if one.id in state.models]
        lost = next((one for one in known if one.lost), None)
        if lost is not None:
            return f"{candidate.name} could not be trained again with seed {lost.seed} ({lost.lost})"
        if not any(one.finished for one in known):
            return f"{candidate.name} was not trained to its end {within}"
    for candidate in plan.candidates:
        if not living(plan, state, candidate, plan.seeds):
            models = {model.id for model in plan.models(candidate, plan.seeds)}
            failed = next((why for job, why in state.failed.items() if job.split()[1] in models), "")
            why = f"failed ({failed})" if failed else f"did not end {within}"
            return f"the first attack on {candidate.name} {why}"
    found = select(plan, state)
    barred = [one.name for one in plan.candidates if one not in found.order]
    return f"the numbers of {' and '.join(barred)} are unreliable" if barred else ""
