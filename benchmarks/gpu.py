#!/usr/bin/env python3
"""The training layer on a GPU: is it right and repeatable, how fast, and what holds it back. Prints JSON lines.

    python benchmarks/gpu.py [--device cuda] [--total 285] [--sections ...]
    python benchmarks/gpu.py --tiny --device cpu          # does the script itself run? (no GPU needed)

Needs torch >= 2.9, numpy, safetensors, tomli_w, and the package hcpr_tune on the path; pyautoattack for a part of
`evaluation`; neither ray nor optuna. Each section has a time budget and its own try/except: one failure loses only what
follows in that section. Sections, by value:

    env        versions, defaults of the number formats, host time of the step's prologue
    parity     one step on the device against the same on the CPU, float64, every method and switch
    steps      resnet18 steps per number format, against the published order of work; kernels, busy share, memory
    syncs      where the host waits for the device: training step, evaluation batch
    epoch      the real epoch loop
    graph      the attack with its CUDA graph and without: same images? how much faster?
    repeat     the same seed twice, and a continuation from a checkpoint: bit for bit?
    evaluation margin attack (all survive / survivors shrink; first, second pass), AutoAttack's first attacks, one chunk
    share      1, 2, 4 training processes on the device at once
    faults     out of memory, a capped share, a broken CUDA context
    compiled   the step under torch.compile (needs a C compiler)
    wide       wide_resnet_34_10 steps
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import importlib
import io
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hcpr_tune.training import loop
from hcpr_tune.training.attacks import inner
from hcpr_tune.training.attacks.evaluation import evaluate
from hcpr_tune.training.attacks.pgd import evaluating
from hcpr_tune.training.data.dataset import Data, Split
from hcpr_tune.training.data.pool import of_array
from hcpr_tune.training.methods.losses import pair_consistency, self_paced_cross_entropy
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.models.classifier import normalise_head
from hcpr_tune.training.models.folding import FoldedCopy, fuse_conv_bn
from hcpr_tune.training.recipe import (
    METHODS,
    Attack,
    Augmentation,
    Averaging,
    Evaluation,
    Model,
    Optimiser,
    Recipe,
    Schedule,
    Task,
    WeightPerturbation,
)

SECTIONS = {  # seconds at most
    "env": 20,
    "parity": 50,
    "steps": 70,
    "syncs": 15,
    "epoch": 30,
    "graph": 30,
    "repeat": 30,
    "evaluation": 45,
    "share": 60,
    "faults": 25,
    "compiled": 75,
    "wide": 30,
}
GFLOP_PER_IMAGE = {"resnet18": 29.98, "wide_resnet_34_10": 359.6}  # of a whole 10-step HCPR step (2 per multiply-add)
OPT: argparse.Namespace
DEVICE: torch.device


# ---------------------------------------------------------------- plumbing


def say(section: str, what: str, **found: object) -> None:
    line = json.dumps({"section": section, "what": what, **found}, default=str)
    print(line, flush=True)
    if getattr(OPT, "out", None):
        with Path(OPT.out).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class OutOfTime(BaseException):
    """No `Exception`: torch.compile would take it for a fault of its backend."""


DEADLINE = [float("inf")]


@contextlib.contextmanager
def limited(seconds: float):
    def ring(number, frame):
        raise OutOfTime(f"more than {seconds:.0f} s")

    DEADLINE[0] = time.monotonic() + seconds
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def tried(section: str, what: str):
    """What fails in the block is said, and the section goes on; its time limit ends it."""
    if time.monotonic() > DEADLINE[0]:
        raise OutOfTime(f"before {what}")
    try:
        yield
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        say(section, what, error=f"{type(error).__name__}: {str(error)[:300]}", at=f"{last.filename}:{last.lineno}")
        free()


def cuda() -> bool:
    return DEVICE.type == "cuda"


def wait() -> None:
    if cuda():
        torch.cuda.synchronize()


def free() -> None:
    import gc

    gc.collect()
    if cuda():
        with contextlib.suppress(Exception):
            torch.cuda.empty_cache()


def spread(values) -> dict[str, float]:
    values = list(values)
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
        "n": len(values),
    }


class Smi:
    """nvidia-smi's samples while the block runs."""

    def __enter__(self):
        self.process = None
        if cuda():
            with contextlib.suppress(OSError):
                query = "--query-gpu=utilization.gpu,power.draw,clocks.sm,memory.used"
                self.process = subprocess.Popen(
                    ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "200"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
        return self

    def __exit__(self, *_):
        self.found = {}
        if self.process is not None:
            self.process.terminate()
            lines, _ = self.process.communicate(timeout=10)
            rows = []
            for line in lines.splitlines():
                with contextlib.suppress(ValueError):
                    rows.append([float(x) for x in line.split(",")])
            if rows:
                names = ("util_percent", "watts", "sm_mhz", "used_mib")
                self.found = {
                    name: round(statistics.median(column), 1)
                    for name, column in zip(names, zip(*rows, strict=False), strict=False)
                }


# ---------------------------------------------------------------- material


def synthetic(train: int, validation: int, size: int = 0, seed: int = 0) -> Data:
    """uint8 images of ten classes that can be told apart, on the device."""
    size = size or (8 if OPT.tiny else 32)
    rng = np.random.default_rng(seed)
    patterns = rng.integers(40, 216, (10, 3, 4, 4)).repeat(size // 4, axis=2).repeat(size // 4, axis=3)

    def split(count: int) -> Split:
        labels = np.arange(count) % 10
        noise = rng.integers(-60, 61, (count, 3, size, size))
        images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
        pool = of_array(images, labels, [str(n) for n in range(10)])
        return Split(pool, np.arange(count), torch.from_numpy(pool.labels), torch.from_numpy(images)).to(DEVICE)

    return Data(split(train), split(validation), tuple(str(n) for n in range(10)))


def recipe_of(name: str = "", **changes) -> Recipe:
    name = name or ("small_cnn" if OPT.tiny else "resnet18")
    evaluation = Evaluation(period=10**6, masking_images=0, steps=2, images=128)
    base = {
        "model": Model(name=name),
        "augmentation": Augmentation(4 if not OPT.tiny else 1, True),
        "evaluation": evaluation,
        "epochs": 2,
        "batch_size": 16 if OPT.tiny else 128,
    }
    return Recipe(**{**base, **changes})


def batch_of(data: Data, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    return next(iter(loop.epoch_batches(recipe, data, 1)))


def our_step(recipe, state, images, labels, noise) -> None:
    method, now = method_of(recipe), loop.EpochSettings.of(recipe, 1)
    adversarial = loop.attack(recipe, method, state, images, labels, now.attack_steps, noise)
    loop.update(recipe, method, state, images, adversarial, labels, now)


def published_step(recipe, state, images, labels, noise) -> None:
    """The plain order of work: natural logits anew in each attack step, parameter gradients kept, nothing folded."""
    model, hcpr, settings = state.model, recipe.hcpr, recipe.attack
    steps = loop.EpochSettings.of(recipe, 1).attack_steps
    adversarial = images + settings.initial_noise * torch.randn(
        images.shape, generator=noise, device=images.device, dtype=images.dtype
    )
    model.eval()
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_(True)
        pair_consistency(
            model(images), model(adversarial), hcpr.scale, hcpr.kl_weight, hcpr.square_weight
        ).sum().backward()
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


def timed(step, repeats: int, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds per step, waited for, and what of it the host was busy."""
    whole, host = [], []
    until = time.perf_counter() + seconds
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        step()
        host.append(1e3 * (time.perf_counter() - began))
        wait()
        whole.append(1e3 * (time.perf_counter() - began))
        if time.perf_counter() > until and len(whole) >= 3:
            break
    return whole, host


def kernels_of(step) -> dict[str, float]:
    """Kernels of one step, their time together, and the share of the wall time in which one ran."""
    if not cuda():
        return {}
    from torch.profiler import ProfilerActivity, profile

    wait()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        step()
        wait()
        wall = 1e3 * (time.perf_counter() - began)
    spans, top = [], collections.Counter()
    for event in seen.events():
        # Annotations have spans on the device too, but are no kernels.
        annotation = getattr(event, "is_user_annotation", False) or event.name.startswith(
            ("Optimizer.", "ProfilerStep")
        )
        if event.device_type == torch.autograd.DeviceType.CUDA and not annotation:
            spans.append((event.time_range.start, event.time_range.end))
            top[event.name[:60]] += event.time_range.end - event.time_range.start
    busy, last = 0.0, -1e30
    for start, end in sorted(spans):
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return {
        "kernels": len(spans),
        "busy_ms": round(busy / 1e3, 2),
        "wall_ms_profiled": round(wall, 2),
        "longest": {k: round(v / 1e3, 2) for k, v in top.most_common(6)},
    }


def rate(recipe: Recipe, milliseconds: float) -> float | None:
    per = GFLOP_PER_IMAGE.get(recipe.model.name)
    return None if per is None else round(per * recipe.batch_size / milliseconds, 1)  # TFLOP/s


# ---------------------------------------------------------------- sections


def env() -> None:
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "host_cpus": os.cpu_count(),
        "kernel": platform.release(),
    }
    if cuda():
        free_bytes, total = torch.cuda.mem_get_info()
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "free_gib": round(free_bytes / 2**30, 2),
            "total_gib": round(total / 2**30, 2),
        }
        with contextlib.suppress(OSError):
            found["smi"] = subprocess.run(
                [
                    "nvidia-smi",
                    "--query-gpu=driver_version,clocks.max.sm,power.limit,compute_mode",
                    "--format=csv,noheader",
                ],
                capture_output=True,
                text=True,
            ).stdout.strip()
    backends = torch.backends
    found["defaults"] = {
        "matmul": backends.cuda.matmul.fp32_precision,
        "cudnn.conv": backends.cudnn.conv.fp32_precision,
        "benchmark": backends.cudnn.benchmark,
        "deterministic": backends.cudnn.deterministic,
    }
    say("env", "machine", **found)
    recipe = recipe_of()
    data = synthetic(256, 128)
    began = time.perf_counter()
    state = loop.initial_state(recipe, data)
    wait()
    say("env", "initial_state (build, check on the CPU, to the device)", seconds=round(time.perf_counter() - began, 3))
    with tried("env", "prologue"):

        def memo():
            return {id(t): t for t in (*state.model.parameters(), *state.model.buffers())}

        rows = {}
        for name, work in {
            "deepcopy of the module tree": lambda: copy.deepcopy(state.model, memo()),
            "fuse_conv_bn": lambda: fuse_conv_bn(state.model),
            "evaluating()": lambda: contextlib.ExitStack().enter_context(evaluating(state.model)),
        }.items():
            times, _ = timed(work, 7, 4)
            rows[name] = spread(times)
        state.model.train().requires_grad_(True)
        say("env", "host work before each attack, ms", **rows)


def parity() -> None:
    """The noise comes from the CPU for both: only the arithmetic differs."""
    steps = 2 if not OPT.tiny else 1
    three = Attack(steps=Schedule(start=steps, end=steps), start="uniform")
    variants = {name: {"method": name} for name in METHODS}
    variants["hcpr detached"] = {"hcpr": replace(Recipe().hcpr, detached=True)}
    variants["hcpr, weights perturbed"] = {"weight_perturbation": WeightPerturbation(gamma=0.005)}
    variants["trades, averaged, clipped, nesterov"] = {
        "method": "trades",
        "averaging": Averaging(half_life=0.5),
        "optimiser": Optimiser(clip_norm=1.0, nesterov=True),
    }
    variants["pgd_at, l2, smoothed"] = {
        "method": "pgd_at",
        "task": Task(norm="l2", epsilon=0.5),
        "label_smoothing": 0.1,
    }
    data = synthetic(64, 64)
    size = 4 if not OPT.tiny else 3
    for name, changes in variants.items():
        with tried("parity", name):
            attack_settings = replace(three, epsilon=0.5, step_size=0.1) if changes.get("task") is not None else three
            model = Model(name="small_cnn" if OPT.tiny else "resnet18", head="auto")
            same = {"attack": attack_settings, "batch_size": size, "model": model, "precision": "float32"}
            recipe = recipe_of(**same, **changes)
            left: dict[str, dict[str, torch.Tensor]] = {}
            for device in ("cpu", DEVICE):
                split = data.train.to(torch.device(device))
                on = Data(split, split, data.class_names)
                state = loop.initial_state(recipe, on)
                state.model.double()
                if state.averaged is not None:
                    state.averaged = loop.Averaged(state.model, recipe.averaging.half_life, 4)
                images, labels = batch_of(on, recipe)
                images = images.double()
                drawn = torch.Generator().manual_seed(3)
                fixed = recipe.attack.epsilon * (2 * torch.rand(images.shape, generator=drawn, dtype=torch.float64) - 1)
                if recipe.task.norm == "l2":
                    fixed = fixed / fixed.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * recipe.attack.epsilon
                before = inner.random_start
                start = images + fixed.to(images.device)
                inner.random_start = lambda *_, start=start: start
                try:
                    method, now = method_of(recipe), loop.EpochSettings.of(recipe, 1)
                    adversarial = loop.attack(recipe, method, state, images, labels, now.attack_steps, None)
                finally:
                    inner.random_start = before
                means = loop.update(recipe, method, state, images, adversarial, labels, now)
                found = {k: v.cpu() for k, v in state.model.state_dict().items()}
                if state.averaged is not None:
                    found |= {f"average.{k}": v.cpu() for k, v in state.averaged.state_dict()["mean"].items()}
                left[str(device)] = {"adversarial": adversarial.cpu(), "means": means.cpu(), **found}
            one, other = left["cpu"], left[str(DEVICE)]
            worst = {k: float((one[k].double() - other[k].double()).abs().max()) for k in one}
            weights = max(v for k, v in worst.items() if k not in ("adversarial", "means"))
            say(
                "parity",
                name,
                ok=max(worst.values()) <= 1e-9,
                weights=weights,
                adversarial=worst["adversarial"],
                losses=worst["means"],
                pixels_that_differ=int(((one["adversarial"] - other["adversarial"]).abs() > 1e-9).sum()),
            )


FORMATS = {
    "float32": {"precision": "float32"},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bfloat16"},
    "bf16, deterministic": {"precision": "bfloat16", "deterministic": True},
    "bf16+compile": {"precision": "bfloat16", "compile": True},
    "tf32+compile": {"precision": "tf32", "compile": True},
}


def measured_step(
    section: str,
    label: str,
    recipe: Recipe,
    data: Data,
    step=our_step,
    layout=torch.channels_last,
    formats=True,
    repeats=12,
    seconds=4.0,
    profiled=False,
    **more,
) -> float:
    free()
    if cuda():
        torch.cuda.reset_peak_memory_stats()
    scope = loop.number_formats(recipe, DEVICE) if formats else contextlib.nullcontext()
    with scope:
        state = loop.initial_state(recipe, data)
        state.model.to(memory_format=layout)
        images, labels = batch_of(data, recipe)
        images = images.contiguous(memory_format=layout)
        noise = torch.Generator(device=DEVICE).manual_seed(1)
        began = time.perf_counter()
        for _ in range(3):
            step(recipe, state, images, labels, noise)
        wait()
        warm = time.perf_counter() - began
        with Smi() as smi:
            whole, host = timed(lambda: step(recipe, state, images, labels, noise), 3 if OPT.tiny else repeats, seconds)
        found = {
            "ms": spread(whole),
            "host_ms": spread(host),
            "warm_up_s": round(warm, 2),
            "tflops": rate(recipe, statistics.median(whole)),
            "images_per_s": round(recipe.batch_size / statistics.median(whole) * 1e3),
        }
        if cuda():
            found |= {
                "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20),
                "reserved_mib": round(torch.cuda.max_memory_reserved() / 2**20),
                "smi": smi.found,
            }
        if profiled:
            with tried(section, f"{label}: profile"):
                found["profile"] = kernels_of(lambda: step(recipe, state, images, labels, noise))
        finite = all(bool(p.isfinite().all()) for p in state.model.parameters())
        say(section, label, finite=finite, **found, **more)
    return statistics.median(whole)


def steps() -> None:
    data = synthetic(512, 128)
    medians = {}
    plan = [
        ("ours float32", "float32", our_step, torch.channels_last, True, False),
        ("ours tf32", "tf32", our_step, torch.channels_last, True, True),
        ("ours bf16", "bf16", our_step, torch.channels_last, True, True),
        (
            "published order, NCHW, torch's defaults (tf32 convolutions)",
            "float32",
            published_step,
            torch.contiguous_format,
            False,
            True,
        ),
        ("published order, NCHW, true float32", "float32", published_step, torch.contiguous_format, True, False),
        ("ours float32, NCHW", "float32", our_step, torch.contiguous_format, True, False),
        ("ours tf32, NCHW", "tf32", our_step, torch.contiguous_format, True, False),
        ("ours bf16, deterministic", "bf16, deterministic", our_step, torch.channels_last, True, False),
        ("ours bf16, batch 512", "bf16", our_step, torch.channels_last, True, False),
        ("ours float32, again", "float32", our_step, torch.channels_last, True, False),
    ]
    for label, format_name, step, layout, formats, profiled in plan:
        with tried("steps", label):
            recipe = recipe_of(**FORMATS[format_name])
            if "512" in label:
                recipe = replace(recipe, batch_size=32 if OPT.tiny else 512)
            medians[label] = measured_step("steps", label, recipe, data, step, layout, formats, profiled=profiled)
    base = medians.get("published order, NCHW, torch's defaults (tf32 convolutions)")
    if base:
        say(
            "steps",
            "times faster than the published order with torch's defaults",
            **{k: round(base / v, 2) for k, v in medians.items() if "512" not in k},
        )


def syncs() -> None:
    if not cuda():
        say("syncs", "left out", reason="the CPU has nothing to wait for")
        return
    recipe, data = recipe_of(**FORMATS["bf16"]), synthetic(128 * 4, 256)
    state = loop.initial_state(recipe, data)
    noise = torch.Generator(device=DEVICE).manual_seed(1)

    def counted(work) -> tuple[int, dict[str, int]]:
        seen: collections.Counter[str] = collections.Counter()

        def heard(message, category, filename, lineno, file=None, line=None):
            if "synchroniz" in str(message):
                frames = [f for f in traceback.extract_stack() if "/hcpr_tune/" in f.filename]
                seen[f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else f"{filename}:{lineno}"] += 1

        wait()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = heard
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum(seen.values()), dict(seen.most_common())

    def epoch():
        for images, labels in loop.epoch_batches(recipe, data, 1):
            our_step(recipe, state, images, labels, noise)

    with tried("syncs", "training"):
        epoch()
        total, where = counted(epoch)
        say("syncs", "training, 4 steps", total=total, per_step=total / 4, where=where)
    with tried("syncs", "evaluation"):
        labels = fooled_labels(state.model, data)
        settings = Evaluation(steps=20, batch_size=256)
        task = Task(epsilon=1e-5)

        def work():
            return evaluate(fuse_conv_bn(state.model), labels, task, settings, 10)

        work()
        total, where = counted(work)
        say("syncs", "evaluation, one batch of 256, 20 steps, all survive", total=total, where=where)


def fooled_labels(model: nn.Module, data: Data) -> Split:
    """The validation images with the labels that the model gives them, so that the attack has all of them to attack."""
    split = data.validation
    model = fuse_conv_bn(model)
    with torch.no_grad(), evaluating(model):
        labels = torch.cat([model(split.fetch(chosen)).argmax(1) for chosen in torch.arange(len(split)).split(256)])
    pool = replace(split.pool, labels=labels.cpu().numpy())
    return Split(pool, split.indices, labels, split.images)


def epoch() -> None:
    count = 64 if OPT.tiny else 128 * 40 + 72
    data = synthetic(count, 128)
    small = synthetic(64 if OPT.tiny else 128 * 10 + 72, 128)
    for format_name in ("float32", "tf32", "bf16") if not OPT.tiny else ("float32",):
        with tried("epoch", format_name):
            recipe = recipe_of(
                **FORMATS[format_name],
                epochs=1000,
                evaluation=Evaluation(period=10**6, steps=1, images=16, masking_images=0),
            )
            on = small if format_name == "float32" else data
            state, seconds = loop.initial_state(recipe, on), []
            for one in loop.train(recipe, on, state):
                seconds.append(one.seconds_attack + one.seconds_update)
                if len(seconds) == 4:
                    break
            say(
                "epoch",
                format_name,
                images=one.images,
                ms_per_image_x128=spread(1e3 * s / one.images * 128 for s in seconds[1:]),
                first_epoch_s=round(seconds[0], 3),
                attack_share=round(one.seconds_attack / (one.seconds_attack + one.seconds_update), 3),
            )


def graph() -> None:
    if not cuda():
        say("graph", "left out", reason="no CUDA graphs on the CPU")
        return
    data = synthetic(512, 128)
    for format_name in ("bf16", "tf32"):
        graphed_against_eager(format_name, data)


def graphed_against_eager(format_name: str, data: Data) -> None:
    """The attack as a training runs it, with a CUDA graph, against the same without one."""
    with tried("graph", f"attack, {format_name}"):
        recipe = recipe_of(**FORMATS[format_name])
        with loop.number_formats(recipe, DEVICE):
            state = loop.initial_state(recipe, data)
            images, labels = batch_of(data, recipe)
            for _ in range(2):
                our_step(recipe, state, images, labels, torch.Generator(device=DEVICE).manual_seed(1))
            method, now = method_of(recipe), loop.EpochSettings.of(recipe, 1)
            found, ready, times = {}, {}, {}
            for kind in ("eager", "graph"):
                maximise = inner.InnerMaximisation(recipe, method, state.model, None)
                maximise._graphed = kind == "graph"

                def attacked(maximise=maximise):
                    noise = torch.Generator(device=DEVICE).manual_seed(7)
                    return maximise(images, labels, now.attack_steps, noise)

                began = time.perf_counter()
                attacked()
                wait()
                ready[kind] = round(time.perf_counter() - began, 2)
                found[kind] = attacked()
                times[kind] = timed(attacked, 12, 4)
            difference = (found["eager"] - found["graph"]).abs()
            say(
                "graph",
                f"attack, {format_name}",
                ms={kind: spread(whole) for kind, (whole, _) in times.items()},
                host_ms={kind: spread(host) for kind, (_, host) in times.items()},
                ready_s=ready,
                equal_bits=bool((difference == 0).all()),
                share_of_pixels_that_differ=float((difference > 1e-6).float().mean()),
            )
            refresh, _ = timed(FoldedCopy(state.model, torch.bfloat16).refresh, 7, 2)
            say("graph", f"{format_name}: refresh of the folded weights, ms", **spread(refresh))
            free()


def compiled() -> None:
    data = synthetic(512, 128)
    if OPT.tiny:
        say("compiled", "left out", reason="minutes on a small CPU")
        return
    with tried("compiled", "ours bf16+compile"):
        measured_step("compiled", "ours bf16+compile", recipe_of(**FORMATS["bf16+compile"]), data, profiled=True)
    # tf32 set by the new API is what torch 2.9 to 2.13 may refuse to compile under (pytorch issue 166387).
    with tried("compiled", "ours tf32+compile"):
        measured_step("compiled", "ours tf32+compile", recipe_of(**FORMATS["tf32+compile"]), data)


def repeat() -> None:
    data = synthetic(48 if OPT.tiny else 128 * 6 + 40, 64)

    def trained(recipe, epochs, state=None):
        state = state or loop.initial_state(recipe, data)
        for one in loop.train(recipe, data, state):
            if one.epoch == epochs:
                break
        return state

    def bits(state):
        return {k: v.detach().cpu().clone() for k, v in state.model.state_dict().items()}

    def compared(one, other):
        worst = max(float((one[k].double() - other[k].double()).abs().max()) for k in one)
        return {"equal_bits": all(torch.equal(one[k], other[k]) for k in one), "largest_difference": worst}

    for format_name in ("float32", "tf32", "bf16"):
        for deterministic in (False, True):
            label = f"{format_name}, deterministic={deterministic}"
            with tried("repeat", label):
                try:
                    recipe = recipe_of(
                        precision=FORMATS[format_name]["precision"],
                        deterministic=deterministic,
                        epochs=2,
                        averaging=Averaging(half_life=0.5),
                        attack=Attack(steps=Schedule(start=3, end=3)),
                        evaluation=Evaluation(period=1, steps=3, images=64, masking_images=0),
                    )
                    began = time.perf_counter()
                    first = bits(trained(recipe, 2))
                    seconds = time.perf_counter() - began
                    second = bits(trained(recipe, 2))
                    half = trained(recipe, 1)
                    kept = io.BytesIO()
                    torch.save(half.state_dict(), kept)
                    kept.seek(0)
                    again = loop.initial_state(recipe, data)
                    again.load_state_dict(torch.load(kept, map_location=DEVICE, weights_only=True))
                    gone_on = bits(trained(recipe, 2, again))
                    say(
                        "repeat",
                        label,
                        twice=compared(first, second),
                        gone_on=compared(first, gone_on),
                        seconds=round(seconds, 2),
                    )
                finally:
                    free()
    with tried("repeat", "use_deterministic_algorithms"):
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                for name in ("small_cnn", "resnet18") if not OPT.tiny else ("small_cnn",):
                    recipe = recipe_of(name, epochs=1, attack=Attack(steps=Schedule(start=1, end=1)))
                    trained(recipe, 1)
            say(
                "repeat",
                "ops that torch calls nondeterministic",
                found=sorted(
                    {str(w.message).split(" does not have")[0][:100] for w in heard if "determinis" in str(w.message)}
                ),
            )
        finally:
            torch.use_deterministic_algorithms(False)


def evaluation() -> None:
    count = 64 if OPT.tiny else 2048
    data = synthetic(512, count)
    recipe = recipe_of(**FORMATS["tf32"])
    state = loop.initial_state(recipe, data)
    noise = torch.Generator(device=DEVICE).manual_seed(1)
    for images, labels in loop.epoch_batches(recipe, data, 1):
        our_step(recipe, state, images, labels, noise)
    split = fooled_labels(state.model, data)
    # The radius at which about half of the images survive: survivors then shrink step by step.
    radius = 8 / 255
    for _ in range(6):
        few = replace(Evaluation(), images=min(256, count), steps=10)
        share = evaluate(fuse_conv_bn(state.model), split, Task(epsilon=radius), few, 10).robust_correct / few.images
        if 0.35 < share < 0.75:
            break
        radius *= 0.6 if share < 0.5 else 1.5
    for what, epsilon in (("survivors shrink", radius), ("all survive", 1e-6)):
        for precision, size in (
            (("float32", 512), ("tf32", 512), ("tf32", 2048)) if not OPT.tiny else (("float32", 32),)
        ):
            with tried("evaluation", f"{what}, batch {size}"):
                settings = Evaluation(steps=20, batch_size=size, precision=precision)
                model, passes, found = fuse_conv_bn(state.model), [], None
                for _ in range(2):
                    wait()
                    began = time.perf_counter()
                    found = evaluate(model, split, Task(epsilon=epsilon), settings, 10)
                    wait()
                    passes.append(time.perf_counter() - began)
                say(
                    "evaluation",
                    f"{precision}, {what}, batch {size}",
                    epsilon=epsilon,
                    robust=found.robust_correct,
                    images=count,
                    seconds_first=round(passes[0], 3),
                    seconds_second=round(passes[1], 3),
                    images_per_s=round(count / passes[1]),
                )
    from hcpr_tune.training.attacks.cascade import CascadeConfig, run_cascade
    from hcpr_tune.training.attacks.config import Threat

    for size in (8,) if OPT.tiny else (100, 500):
        with tried("evaluation", f"AutoAttack, chunk of {size}"):
            chosen = torch.arange(size)
            images, labels = split.fetch(chosen), split.labels[chosen.to(DEVICE)]
            model = fuse_conv_bn(state.model)
            began, spent = time.perf_counter(), {}
            for one in run_cascade(
                model,
                images,
                labels,
                Threat("linf", min(radius / 2, 8 / 255)),
                CascadeConfig(10, 0, "strong" if not OPT.full else "autoattack"),
            ):
                wait()
                spent[one.attack] = round(time.perf_counter() - began, 2)
                began = time.perf_counter()
                say(
                    "evaluation",
                    f"chunk of {size}: {one.attack}",
                    seconds=spent[one.attack],
                    left=sum(a == b for a, b in zip(one.classes, labels.tolist(), strict=False)),
                    warnings=one.warnings,
                )


def worker() -> None:
    """One of several processes: warms up, waits for the sign, then trains for so many seconds."""
    from hcpr_tune.training import gpu_memory

    waited = gpu_memory.claim(DEVICE, OPT.share)
    recipe, data = recipe_of(**FORMATS[OPT.format]), synthetic(512, 128)
    with loop.torch_threads(1), loop.number_formats(recipe, DEVICE):
        state = loop.initial_state(recipe, data)
        images, labels = batch_of(data, recipe)
        noise = torch.Generator(device=DEVICE).manual_seed(1)
        for _ in range(3):
            our_step(recipe, state, images, labels, noise)
        wait()
        go = Path(OPT.go)
        go.with_name(f"ready.{os.getpid()}").touch()
        until = time.monotonic() + 120
        while not go.exists() and time.monotonic() < until:
            time.sleep(0.01)
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < OPT.seconds:
            for _ in range(1 if OPT.tiny else 5):
                our_step(recipe, state, images, labels, noise)
                done += 1
            wait()
        seconds = time.perf_counter() - began
    reserved = torch.cuda.memory_reserved() if cuda() else 0
    print(
        json.dumps(
            {
                "steps": done,
                "seconds": seconds,
                "images": done * recipe.batch_size,
                "waited": waited,
                "reserved": reserved,
            }
        ),
        flush=True,
    )


def share() -> None:
    seconds = 1.0 if OPT.tiny else 6.0
    one_alone = {}
    for format_name in ("bf16",) if not OPT.tiny else ("float32",):
        for count in (1, 2, 4) if not OPT.tiny else (1, 2):
            with tried("share", f"{count} processes, {format_name}"), tempfile.TemporaryDirectory() as folder:
                go = Path(folder) / "go"
                command = [
                    sys.executable,
                    str(Path(__file__).resolve()),
                    "--worker",
                    "--device",
                    OPT.device,
                    "--go",
                    str(go),
                    "--seconds",
                    str(seconds),
                    "--format",
                    format_name,
                    "--share",
                    str(1 / count),
                    *(["--tiny"] if OPT.tiny else []),
                ]
                began = time.perf_counter()
                processes = [
                    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                    for _ in range(count)
                ]
                try:
                    while (
                        len(list(Path(folder).glob("ready.*"))) < count
                        and all(p.poll() is None for p in processes)
                        and time.perf_counter() - began < 90
                    ):
                        time.sleep(0.05)
                    ready = time.perf_counter() - began
                    with Smi() as smi:
                        go.touch()
                        answers = [p.communicate(timeout=60) for p in processes]
                finally:
                    for process in processes:
                        if process.poll() is None:
                            process.kill()
                broken = [
                    error.strip().splitlines()[-1]
                    for (_, error), p in zip(answers, processes, strict=False)
                    if p.returncode
                ]
                found = [json.loads(out.strip().splitlines()[-1]) for out, _ in answers if out.strip()]
                total = sum(f["images"] / f["seconds"] for f in found)
                one_alone.setdefault(format_name, total)
                say(
                    "share",
                    f"{count} processes, {format_name}",
                    images_per_s=round(total),
                    against_one=round(total / one_alone[format_name], 3) if one_alone[format_name] else None,
                    per_process=[f["steps"] for f in found],
                    ready_s=round(ready, 1),
                    reserved_mib=[round(f["reserved"] / 2**20) for f in found],
                    smi=smi.found,
                    broken=broken,
                )


def faults() -> None:
    if not cuda():
        say("faults", "left out", reason="faults of a GPU")
        return
    from hcpr_tune.training import gpu_memory

    recipe, data = recipe_of(**FORMATS["bf16"]), synthetic(512, 128)

    def usable() -> str:
        try:
            state = loop.initial_state(recipe, data)
            images, labels = batch_of(data, recipe)
            our_step(recipe, state, images, labels, torch.Generator(device=DEVICE).manual_seed(1))
            wait()
            return "usable"
        except Exception as error:
            return f"unusable: {type(error).__name__}"

    with tried("faults", "out of memory"):
        try:
            torch.empty(400 * 2**30, dtype=torch.uint8, device=DEVICE)
        except Exception as error:
            said = gpu_memory.out_of_memory(error)
            kind = type(error).__name__
        gpu_memory.release()
        say("faults", "out of memory", kind=kind, said=said, afterwards=usable())
    with tried("faults", "a capped share"):
        gpu_memory.cap(0.05, DEVICE)
        held = []
        try:
            for _ in range(100):
                held.append(torch.empty(2**30, dtype=torch.uint8, device=DEVICE))
            ended = "no limit felt"
        except Exception as error:
            ended = type(error).__name__
        gib = len(held)
        held.clear()
        gpu_memory.cap(1.0, DEVICE)
        gpu_memory.release()
        free_bytes, total = torch.cuda.mem_get_info()
        say(
            "faults",
            "a capped share of 0.05",
            gib_allocated=gib,
            ended=ended,
            afterwards=usable(),
            outside_torch_mib=round((total - free_bytes - torch.cuda.memory_reserved()) / 2**20),
        )
    with tried("faults", "a broken context"):
        code = (
            "import torch\nx = torch.zeros(4, device='cuda')\n"
            "try:\n    x[torch.tensor([10**6], device='cuda')].sum().item()\n"
            "except Exception as e:\n    print(type(e).__mro__[0].__name__, '|', str(e).splitlines()[0])\n"
            "try:\n    torch.ones(2, device='cuda').sum().item(); print('usable')\n"
            "except Exception as e:\n    print('unusable', type(e).__name__)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        say(
            "faults",
            "an index out of range, then another operation",
            printed=done.stdout.splitlines(),
            code=done.returncode,
        )


def wide() -> None:
    data = synthetic(512, 128)
    name = "small_cnn" if OPT.tiny else "wide_resnet_34_10"
    for format_name in ("bf16", "tf32", "bf16+compile") if not OPT.tiny else ("float32",):
        with tried("wide", format_name):
            measured_step(
                "wide",
                f"{name}, {format_name}",
                recipe_of(name, **FORMATS[format_name]),
                data,
                repeats=6,
                seconds=4,
            )


# ---------------------------------------------------------------- run


def main() -> None:
    global OPT, DEVICE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes: does the script itself run?")
    parser.add_argument("--full", action="store_true", help="all four attacks of AutoAttack")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated, in this order")
    parser.add_argument("--total", type=float, default=285.0, help="seconds for everything")
    parser.add_argument("--out", default="", help="also append the lines to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--go", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=6.0, help=argparse.SUPPRESS)
    parser.add_argument("--format", default="bf16", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, default=1.0, help=argparse.SUPPRESS)
    OPT = parser.parse_args()
    DEVICE = torch.device(OPT.device)
    if OPT.tiny:
        torch.set_num_threads(1)
    # Half an import, cut off by a section's time limit, would break all that follows.
    importlib.import_module("torch._dynamo")
    importlib.import_module("torch._inductor")
    if cuda():
        torch.zeros(1, device=DEVICE)
    if OPT.worker:
        worker()
        return
    began = time.monotonic()
    spent = {}
    for name in OPT.sections.split(","):
        left = OPT.total - (time.monotonic() - began)
        if left < 5:
            say(name, "left out", reason="the time is over")
            continue
        section_began = time.monotonic()
        try:
            with limited(min(SECTIONS[name] * (5 if OPT.tiny else 1), left)):
                globals()[name]()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            say(name, "broken off", error=f"{type(error).__name__}: {str(error)[:300]}")
        finally:
            torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False
            free()
        spent[name] = round(time.monotonic() - section_began, 1)
    say("end", "seconds by section", **spent, total=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
