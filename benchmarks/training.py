"""What the trainer costs against the plain order of work, as ratios within one run on one machine.

    python benchmarks/training.py steps        # one HCPR step against the plain one: small_cnn and resnet18
    python benchmarks/training.py survivors    # robust evaluation of survivors only, against all images in all steps
    python benchmarks/training.py data         # the share of a step that batches and augmentation take
    python benchmarks/training.py memory       # peak memory of a resnet18 step
    python benchmarks/training.py epochs       # seconds per epoch, per method

Prints JSON. Options: --repeats N (paired, in turn), --threads N, --root DIR (Fashion-MNIST for `epochs`; left out where
missing).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from figures import spread
from torch import Tensor, nn

from hcpr_tune.errors import InputError
from hcpr_tune.training.attacks.evaluation import evaluate, random_starts, scoring_attack
from hcpr_tune.training.attacks.pgd import evaluating, pgd_step, project
from hcpr_tune.training.data.dataset import Split, load_data
from hcpr_tune.training.loop import (
    EpochSettings,
    TrainingState,
    attack,
    epoch_batches,
    initial_state,
    torch_threads,
    train,
    update,
)
from hcpr_tune.training.methods.losses import misclassification_margin, pair_consistency, self_paced_cross_entropy
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.methods.registry import METHODS
from hcpr_tune.training.models.classifier import build_model, normalise_head
from hcpr_tune.training.recipe import Attack, Augmentation, Evaluation, Model, Recipe, Task

SHAPES = {"small_cnn": (128, 1, 8, 8), "resnet18": (128, 3, 32, 32)}


def published(name: str) -> Recipe:
    """The published settings: 10 steps, batch 128, SGD."""
    return Recipe(model=Model(name=name))


def new_state(recipe: Recipe, shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> TrainingState:
    model = build_model(recipe.model, shape[1], 10, 0, (shape[2], shape[3])).to(dtype=dtype, memory_format=layout)
    settings = recipe.optimiser
    optimiser = torch.optim.SGD(model.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    return TrainingState(model, optimiser, None, 0)


def our_step(recipe: Recipe, state: TrainingState, images: Tensor, labels: Tensor) -> None:
    method, now = method_of(recipe), EpochSettings.of(recipe, 1)
    noise = torch.Generator().manual_seed(1)
    adversarial = attack(recipe, method, state, images, labels, now.attack_steps, noise)
    update(recipe, method, state, images, adversarial, labels, now)


def plain_step(recipe: Recipe, state: TrainingState, images: Tensor, labels: Tensor) -> None:
    """The same mathematics in the order in which one would first write it.

    The natural logits anew in each attack step, parameter gradients kept, no folding, channels first.
    """
    model, hcpr, settings = state.model, recipe.hcpr, recipe.attack
    noise = torch.Generator().manual_seed(1)
    adversarial = images + settings.initial_noise * torch.randn(images.shape, generator=noise, dtype=images.dtype)
    model.eval()
    for _ in range(round(settings.steps.end)):
        adversarial = adversarial.detach().requires_grad_(True)
        loss = pair_consistency(model(images), model(adversarial), hcpr.scale, hcpr.kl_weight, hcpr.square_weight).sum()
        loss.backward()
        assert adversarial.grad is not None
        moved = adversarial.detach() + settings.step_size * adversarial.grad.sign()
        adversarial = torch.minimum(torch.maximum(moved, images - settings.epsilon), images + settings.epsilon).clamp(
            0, 1
        )
    model.train()
    state.optimiser.zero_grad()
    natural, attacked = model(images), model(adversarial)
    loss = self_paced_cross_entropy(natural, labels, hcpr.scale, hcpr.margin).mean()
    loss = loss + pair_consistency(natural, attacked, hcpr.scale, hcpr.kl_weight, hcpr.square_weight).mean()
    loss.backward()
    state.optimiser.step()
    normalise_head(model)


def batch(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=drawn, dtype=torch.float64).to(dtype), torch.randint(
        10, shape[:1], generator=drawn
    )


def paired(ours: Callable[[], None], other: Callable[[], None], repeats: int) -> dict[str, Any]:
    """Run the two in turn; ratios pair by pair, so that a drift of the machine's speed cancels."""
    seconds: dict[str, list[float]] = {"ours": [], "other": []}
    ours(), other()
    for _ in range(repeats):
        for name, run in (("ours", ours), ("other", other)):
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    ratios = [other / ours for ours, other in zip(seconds["ours"], seconds["other"], strict=True)]
    return {
        "repeats": repeats,
        "ratio": spread(ratios),
        "seconds_ours": spread(seconds["ours"]),
        "seconds_other": spread(seconds["other"]),
    }


def steps(options: argparse.Namespace) -> dict[str, Any]:
    result = {}
    for name, shape in SHAPES.items():
        recipe = published(name)
        exact = [new_state(recipe, (8, *shape[1:]), torch.float64, torch.contiguous_format) for _ in range(2)]
        images, labels = batch((8, *shape[1:]), torch.float64)
        our_step(recipe, exact[0], images, labels)
        plain_step(recipe, exact[1], images, labels)
        pairs = zip(exact[0].model.state_dict().values(), exact[1].model.state_dict().values(), strict=True)
        difference = max(float((a - b).abs().max()) for a, b in pairs)
        ours = new_state(recipe, shape, torch.float32, torch.channels_last)
        plain = new_state(recipe, shape, torch.float32, torch.contiguous_format)
        images, labels = batch(shape, torch.float32)
        timed = paired(
            lambda r=recipe, s=ours, i=images, y=labels: our_step(r, s, i, y),
            lambda r=recipe, s=plain, i=images, y=labels: plain_step(r, s, i, y),
            options.repeats,
        )
        result[name] = {"batch": shape[0], "largest_difference_float64": difference, **timed}
    return result


def trained(task: Task, epochs: int) -> tuple[nn.Module, Any, Recipe]:
    """A small_cnn, trained so far that about half of the images survive."""
    recipe = Recipe(
        task=task,
        epochs=epochs,
        batch_size=64,
        attack=Attack(epsilon=task.epsilon, step_size=task.epsilon / 5),
        evaluation=Evaluation(period=epochs, masking_images=0),
    )
    data = load_data(recipe.task)
    state = initial_state(recipe, data)
    for _ in train(recipe, data, state):
        pass
    return state.model, data, recipe


def survivors(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    tasks = {
        "digits": (Task(epsilon=0.15), 4),
        "fashion_mnist": (Task("fashion_mnist", options.root, images=5000, epsilon=0.1), 3),
    }
    for name, (task, epochs) in tasks.items():
        try:
            result[name] = survivors_on(*trained(task, epochs), options.repeats)
        except InputError as error:
            result[name] = f"left out: {error}"
    return result


def survivors_on(model: nn.Module, data: Any, recipe: Recipe, repeats: int) -> dict[str, Any]:
    split, settings, task = data.validation, recipe.evaluation, recipe.task
    counts = {}
    # In float32 another batch rounds otherwise, and the sign of a step turns that into other pixels: counts are
    # compared in float64.
    exact = InFloat64(model)
    same = (
        evaluate(exact, split, task, settings, data.classes).robust_correct,
        everything_attacked(exact, split, task, settings),
    )

    def ours() -> None:
        counts["ours"] = evaluate(model, split, task, settings, data.classes).robust_correct

    def everything() -> None:
        counts["other"] = everything_attacked(model, split, task, settings)

    timed = paired(ours, everything, repeats)
    return {
        "images": len(split),
        "robust_share": same[0] / len(split),
        "counts_float64": same,
        "counts_float32": counts,
        **timed,
    }


class InFloat64(nn.Module):
    """The same model, computed in float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model).double()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images.double())
        return logits


def everything_attacked(model: nn.Module, split: Split, task: Task, settings: Evaluation) -> int:
    """All images in all steps: an image is robust if no step broke it."""
    count, config = 0, scoring_attack(task, settings)
    for chosen in torch.arange(len(split)).split(settings.batch_size):
        images, labels = split.fetch(chosen), split.labels[chosen]
        (adversarial,) = random_starts(images, chosen, task.threat, config, settings.seed)
        objective = partial(misclassification_margin, labels=labels)
        with evaluating(model):
            with torch.no_grad():
                robust = objective(model(images)) < 0
            adversarial = project(adversarial, images, task.threat)
            for _ in range(config.steps):
                adversarial, logits = pgd_step(model, adversarial, images, objective, task.threat, config.step_size)
                robust &= objective(logits) < 0
            with torch.no_grad():
                robust &= objective(model(adversarial)) < 0
        count += int(robust.sum())
    return count


def data_share(options: argparse.Namespace) -> dict[str, Any]:
    """Batches and augmentation of a resident split against the whole epoch, on digits (8x8, small_cnn)."""
    recipe = Recipe(
        task=Task(epsilon=0.15),
        augmentation=Augmentation(crop_padding=1, flip=True),
        evaluation=Evaluation(masking_images=0),
    )
    data = load_data(recipe.task)
    state = initial_state(recipe, data)
    shares = []
    for epoch in range(1, options.repeats + 1):
        began = time.perf_counter()
        for _ in epoch_batches(recipe, data, epoch):
            pass
        batches = time.perf_counter() - began
        method, now = method_of(recipe), EpochSettings.of(recipe, epoch)
        noise = torch.Generator().manual_seed(epoch)
        began = time.perf_counter()
        for images, labels in epoch_batches(recipe, data, epoch):
            adversarial = attack(recipe, method, state, images, labels, now.attack_steps, noise)
            update(recipe, method, state, images, adversarial, labels, now)
        shares.append(batches / (time.perf_counter() - began))
    return {"repeats": options.repeats, "share_of_step": spread(shares)}


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of a process that makes one resnet18 step at batch 128, ours and the plain one."""
    peaks = {}
    for which in ("ours", "plain"):
        command = [sys.executable, __file__, "one-step", "--which", which, "--threads", str(options.threads)]
        peaks[which] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"peak_rss_bytes": peaks, "ratio": peaks["ours"] / peaks["plain"]}


def one_step(options: argparse.Namespace) -> None:
    recipe, shape = published("resnet18"), SHAPES["resnet18"]
    ours = options.which == "ours"
    state = new_state(recipe, shape, torch.float32, torch.channels_last if ours else torch.contiguous_format)
    (our_step if ours else plain_step)(recipe, state, *batch(shape, torch.float32))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def epochs(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    tasks = {
        "digits": Task(epsilon=0.15),
        "fashion_mnist_10000": Task("fashion_mnist", options.root, images=12500, epsilon=0.1),
    }
    for name, task in tasks.items():
        try:
            data = load_data(task)
        except InputError as error:
            result[name] = f"left out: {error}"
            continue
        for method in METHODS:
            recipe = Recipe(
                task=task,
                method=method,
                epochs=options.repeats,
                evaluation=Evaluation(period=10**6, masking_images=0, steps=1),
            )
            measured = list(train(recipe, data, initial_state(recipe, data)))
            seconds = [one.seconds_attack + one.seconds_update for one in measured]
            result.setdefault(name, {"training_images": len(data.train)})[method] = spread(seconds)
    return result


COMMANDS = {"steps": steps, "survivors": survivors, "data": data_share, "memory": memory, "epochs": epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*COMMANDS, "one-step"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--root", default="data")
    parser.add_argument("--which", choices=("ours", "plain"))
    options = parser.parse_args()
    with torch_threads(options.threads):
        if options.command == "one-step":
            one_step(options)
            return
        result = COMMANDS[options.command](options)
    machine = {"processor": processor(), "cpus": os.cpu_count(), "threads": options.threads, "torch": torch.__version__}
    print(json.dumps({"benchmark": options.command, "machine": machine, **result}, indent=2))


def processor() -> str:
    """The processor's name where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
