"""syne-tune's ASHA and MOBSTER; run by the Python of an environment of its own, where hcpr_tune is not installed.

    python benchmarks/arms/syne.py JOB.json

JOB.json comes from `running.syne_job`. Each trial is a process of `syne_trial.py`, as syne-tune's local backend has it.
Both use the stopping variant: a trial that goes on keeps its process, and the import of torch is paid once per trial.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path

WAYS = {"syne_tune_asha": "ASHA", "syne_tune_mobster": "MOBSTER"}


def config_space(space):
    """The dimensions as syne-tune's; a range with extra values is a range only, conditions are left out."""
    from syne_tune import config_space as of

    found = {}
    for name, dimension in space.items():
        if "choices" in dimension:
            found[name] = of.choice([json.dumps(choice) for choice in dimension["choices"]])
        elif dimension.get("integer"):
            draw = of.lograndint if dimension.get("log") else of.randint
            found[name] = draw(int(dimension["low"]), int(dimension["high"]))
        else:
            draw = of.loguniform if dimension.get("log") else of.uniform
            found[name] = draw(dimension["low"], dimension["high"])
    return found


def points(job):
    """The first points: choices as their JSON; what a point lacks, or has outside its range, syne-tune fills in."""
    found = []
    for point in job["points"]:
        given = {}
        for name, value in point.items():
            dimension = job["space"][name]
            if "choices" in dimension:
                given[name] = json.dumps(value)
            elif dimension["low"] <= value <= dimension["high"]:
                given[name] = value
        found.append(given)
    return found


def main() -> None:
    job_file = Path(sys.argv[1]).resolve()
    job = json.loads(job_file.read_text())
    os.environ["SYNETUNE_FOLDER"] = str(job_file.parent / "syne-tune")
    warnings.simplefilter("ignore")
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.optimizer import baselines

    logging.getLogger().setLevel(logging.ERROR)
    scheduler = getattr(baselines, WAYS[job["arm"]])(
        {**config_space(job["space"]), "job_file": str(job_file)},
        metric="robust_accuracy",
        mode="max",
        resource_attr="epoch",
        max_t=job["epochs"],
        grace_period=job["first_rung"],
        reduction_factor=job["reduction_factor"],
        random_seed=job["seed"],
        points_to_evaluate=points(job),
    )
    tuner = Tuner(
        trial_backend=LocalBackend(
            str(Path(__file__).with_name("syne_trial.py")), pass_args_as_json=True, rotate_gpus=False
        ),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=job["seconds"]),
        n_workers=job["workers"],
        sleep_time=0.1,  # the default, 5 s, is several epochs here
        results_update_interval=1e6,
        print_update_interval=1e6,
        max_failures=job["max_failures"],
        tuner_name="arm",
        save_tuner=False,
        callbacks=[],
    )
    tuner.run()


if __name__ == "__main__":
    main()
