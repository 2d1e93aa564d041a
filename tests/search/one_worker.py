"""A search with one worker, in this process and without Ray: the study's own record, decisions, trainings and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hcpr_tune.execution.runner import recording
from hcpr_tune.execution.search_jobs import search_driver
from hcpr_tune.search.record.results import ResultFiles, StoredStudy, StudyFolder
from hcpr_tune.search.scheduling.orders import Report, TrainOrder, read_report
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.studies import check_new, create
from hcpr_tune.training.recipe import recipe_from_plain
from hcpr_tune.training.session import DataShelf, model_inputs, split_hashes, train_segment


def search(study: StudySpec, storage: Path, name: str) -> StudyFolder:
    """Run the study to its end, one job after the other."""
    folder = check_new(storage, name)
    stored = create(folder, study)
    history = stored.history
    shelf = DataShelf(on_gpu=False)
    with recording(stored, workers=1) as record:
        record.listeners = [ResultFiles(StoredStudy(folder, study, history))]
        driver = search_driver(study, record, folder, lambda: 1)
        while not isinstance(job := driver.next_job(), str):
            for report in reports(driver.started(job), shelf):
                driver.reported(job, read_report(json.dumps(report)))
    return folder


def reports(order: TrainOrder, shelf: DataShelf) -> Iterator[Report]:
    """What a worker sends that carries out the order, without its name."""
    recipe = recipe_from_plain(json.loads(json.dumps(order["recipe"])), "the order")
    segment = order["start"], order["end"], order["reported"], order["checkpoint_every"]
    for epoch in train_segment(recipe, shelf, Path(order["checkpoints"]), *segment):
        report: Report = {"losses": epoch.pop("losses"), "epoch": epoch | {"worker": "one"}}
        if epoch["epoch"] == order["end"]:
            data = shelf.get(recipe.task)
            inputs = {"splits": split_hashes(data), "model_inputs": model_inputs(data)}
            report["end"] = {"status": "reached", "reason": "", **inputs}
        yield report


def summary(folder: StudyFolder) -> dict[str, Any]:
    """Every decision, suggested value and score in their order, and the hash of the best trial's weights."""
    told: list[list[Any]] = []
    for line in folder.record.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "trial":
            told.append(["trial", event["trial"], event["source"], event["params"]])
        elif event["event"] == "job":
            told.append(["job", event["trial"], event["start"], event["end"]])
        elif event["event"] == "epoch":
            counts = [event.get(f"{which}_correct_validation") for which in ("robust", "clean")]
            told.append(["epoch", event["trial"], event["epoch"], event["loss"], *counts])
        elif event["event"] == "job_end":
            told.append(["end", event["trial"], event["status"]])
    weights = sorted(folder.best.rglob("*.safetensors"))
    return {"events": told, "best": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}}


def arithmetic() -> str:
    """A hash of a training step on this machine's processor: others round differently, and train other weights."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(8, 4, 8, 8, generator=drawn).requires_grad_()
    weight = torch.randn(16, 4, 3, 3, generator=drawn).requires_grad_()
    features = torch.nn.functional.batch_norm(torch.nn.functional.conv2d(images, weight), None, None, training=True)
    (features.flatten(1) @ torch.randn(576, 10, generator=drawn)).log_softmax(1).square().mean().backward()
    assert images.grad is not None
    assert weight.grad is not None
    parts = (images.grad, weight.grad)
    kind = f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {cpu_model()}"
    return hashlib.sha256(kind.encode() + b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def cpu_model() -> str:
    """What Linux calls the processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")
