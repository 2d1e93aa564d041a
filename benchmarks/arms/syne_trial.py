"""One trial of syne-tune: started by its local backend, goes on in the Python that has hcpr_tune, reports on stdout."""

import json
import os
import sys
from pathlib import Path

CONFIG = "--st_config_json_filename"


def main() -> None:
    config = json.loads(Path(sys.argv[sys.argv.index(CONFIG) + 1]).read_text())
    job = json.loads(Path(config.pop("job_file")).read_text())
    if sys.prefix != job["prefix"]:
        os.execv(job["python"], [job["python"], *sys.argv])
    train(config, job, Path(sys.argv[sys.argv.index(CONFIG) + 1]).parent.name)


def train(config, job, trial) -> None:
    """Report each scored epoch in the form of `syne_tune.Reporter`, which this environment lacks."""
    import time

    from arms.trainer import reports
    from hcpr_tune.search.spec.dimensions import active_params
    from hcpr_tune.search.spec.study_file import read_study

    study = read_study(Path(job["study"]), [])
    values = {
        name: json.loads(config[name]) if "choices" in job["space"][name] else config[name] for name in study.space
    }
    params = active_params(study.space, values)
    began = time.perf_counter()
    for count, (epoch, score) in enumerate(reports(study.recipe, params, trial, Path(job["log"]))):
        report = {"epoch": epoch, "robust_accuracy": score, "st_worker_timestamp": time.time()}
        report |= {"st_worker_time": time.perf_counter() - began, "st_worker_iter": count}
        print(f"[tune-metric]: {json.dumps(report)}", flush=True)


if __name__ == "__main__":
    main()
