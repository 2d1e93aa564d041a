"""What makes a training fast and right on a GPU, held where there is none: operations counted, and devices played."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hcpr_tune.training import formats, gpu_memory, loop, session
from hcpr_tune.training.attacks import inner
from hcpr_tune.training.attacks.cascade import CascadeConfig, run_cascade, transfer
from hcpr_tune.training.attacks.config import Threat
from hcpr_tune.training.attacks.evaluation import evaluate, masking
from hcpr_tune.training.attacks.examples import examples_png
from hcpr_tune.training.attacks.inner import InnerMaximisation
from hcpr_tune.training.attacks.pgd import Compaction, _sifted, pgd, pgd_step, random_start
from hcpr_tune.training.cuda_context import broken
from hcpr_tune.training.data.augmentation import Augmentation
from hcpr_tune.training.data.dataset import CPU, Data, load_data
from hcpr_tune.training.formats import format_of, forward_in, number_format
from hcpr_tune.training.loop import EpochSettings, attack, epoch_batches, initial_state, train, update
from hcpr_tune.training.methods.losses import misclassification_margin
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.models.architectures import LinearHead
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.models.folding import FoldedCopy, fuse_conv_bn
from hcpr_tune.training.models.registry import ARCHITECTURES
from hcpr_tune.training.recipe import BFLOAT16, FLOAT32, TF32, Attack, Model, Recipe, Schedule, Task

ATTACK_KERNELS, UPDATE_KERNELS = 146, 484
"""Of one step of the attack and of one update of resnet18 in float32. They may only fall."""
HOST_READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "_unique2", "unique_dim")
"""Operations for whose result the host waits."""


LOST = "an illegal memory access was encountered"


class Watched(TorchDispatchMode):
    """The names of the operations in the block, and those that copy between devices."""

    def __init__(self):
        super().__init__()
        self.names, self.across = [], []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        self.names.append(name)
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if isinstance(found, torch.Tensor) and {one.device for one in given} - {found.device}:
            self.across.append(name)
        if name.startswith("index") and any(one.dtype == torch.bool for one in given[1:]):
            self.names.append("nonzero")  # of the mask
        return found

    @property
    def kernels(self):
        """Views and allocations launch nothing."""
        free = ("_unsafe_view", "_record_function", "view", "detach", "empty", "as_strided", "expand", "transpose")
        free += ("unsqueeze", "squeeze", "alias", "split", "select", "slice", "unbind", "permute")
        return [name for name in self.names if name != "t" and not name.startswith(free)]


def resnet(**more):
    return Recipe(model=Model(name="resnet18"), epochs=2, batch_size=4, **more)


@pytest.fixture
def step():
    """Recipe, method, state, images and labels of a resnet18 step, past the first one."""
    recipe = resnet()
    torch.manual_seed(0)
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    shape = {"channels": 3, "classes": 10, "image_size": (32, 32), "class_names": (), "train": Labelled(labels)}
    data = type("Shape", (), shape)()
    state, method = initial_state(recipe, data), method_of(recipe)
    noise = torch.Generator().manual_seed(0)
    adversarial = attack(recipe, method, state, images, labels, 1, noise)
    update(recipe, method, state, images, adversarial, labels, EpochSettings.of(recipe, 1))
    return recipe, method, state, images, labels


class Labelled:
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)


def attack_of(step, steps):
    recipe, method, state, images, labels = step
    with Watched() as watched:
        attack(recipe, method, state, images, labels, steps, torch.Generator().manual_seed(1))
    return watched


def test_a_step_of_the_attack_launches_few_kernels_and_reads_nothing(step):
    three, four = attack_of(step, 3), attack_of(step, 4)
    assert len(four.kernels) - len(three.kernels) <= ATTACK_KERNELS
    assert not set(four.names) & set(HOST_READS)


def test_an_update_launches_few_kernels_and_reads_nothing(step):
    recipe, method, state, images, labels = step
    state.optimiser.param_groups[0]["foreach"] = True  # as on a GPU
    with Watched() as watched:
        update(recipe, method, state, images, images + 0.01, labels, EpochSettings.of(recipe, 1))
    assert len(watched.kernels) <= UPDATE_KERNELS
    assert not set(watched.names) & set(HOST_READS)


def test_an_epoch_copies_its_order_to_the_device_once(digits):
    # Whatever goes from the CPU to another device is seen; `meta` needs no hardware.
    there = torch.device("meta")
    recipe = Recipe(batch_size=64, augmentation=Augmentation(2, flip=True))
    data = Data(digits.train.to(there), digits.validation.to(there), digits.class_names)
    with Watched() as watched:
        count = sum(1 for _ in epoch_batches(recipe, data, 1))
    assert count > 10
    assert len(watched.across) == 4, "the order, and rows, columns and flips of the augmentation"


@pytest.mark.parametrize("head", ["cosine", "linear"])
@pytest.mark.parametrize("name", [*ARCHITECTURES, "torchvision:shufflenet_v2_x0_5"])
def test_logits_are_never_below_float32(name, head):
    if name.startswith("wide"):
        pytest.skip("as preact_resnet18, only larger")
    model = build_model(Model(name=name, head=head), 3, 10, 0)
    # torchvision's own linear layer returns bfloat16 there.
    logits = forward_in(BFLOAT16, model.eval())(torch.rand(2, 3, 32, 32))
    assert logits.dtype == torch.float32
    assert forward_in(FLOAT32, model.double())(torch.rand(2, 3, 32, 32).double()).dtype == torch.float64


def test_a_cpu_trains_in_float32():
    assert {format_of(name, CPU) for name in ("auto", "bfloat16", "tf32", "float32")} == {"float32"}


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, BFLOAT16), (False, FLOAT32)])
def test_auto_is_bfloat16_where_the_gpu_has_it(monkeypatch, has_bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert format_of("auto", torch.device("cuda")) == expected
    assert format_of("tf32", torch.device("cuda")) == TF32


class Listening(torch.nn.Module):
    """A linear classifier that notes the number format of each forward pass."""

    def __init__(self):
        super().__init__()
        self.heard, self.head = set(), LinearHead(64, 10)

    def forward(self, images):
        self.heard.add((torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision))
        return self.head(images.flatten(1))


IEEE, TENSOR_FLOAT = {("ieee", "ieee")}, {("tf32", "tf32")}


@pytest.fixture
def switched(monkeypatch):
    """Torch's switches for GPUs are set where there is none, too: nothing else listens to them."""
    monkeypatch.setattr(formats, "_switches_on", lambda device: True)


@pytest.mark.parametrize(("precision", "expected"), [(FLOAT32, IEEE), (TF32, TENSOR_FLOAT)])
@pytest.mark.parametrize("around", [FLOAT32, TF32])
@pytest.mark.usefixtures("switched")
def test_everything_that_scores_does_so_in_the_declared_format(digits, precision, expected, around):
    recipe = Recipe(task=Task(epsilon=0.1))
    settings = replace(recipe.evaluation, images=16, steps=2, masking_images=8, precision=precision)
    split, images, labels = digits.validation, digits.validation.fetch(torch.arange(8)), digits.validation.labels[:8]
    config = CascadeConfig(10, 0, "first", precision)
    scoring = {
        "evaluate": lambda model: evaluate(model, split, recipe.task, settings, 10),
        "masking": lambda model: masking(model, split, recipe.task, settings),
        "cascade": lambda model: list(run_cascade(model, images, labels, recipe.task.threat, config)),
        "transfer": lambda model: transfer(model, model, images, labels, recipe.task.threat, config),
    }
    for name, scored in scoring.items():
        model = Listening().eval()
        with number_format(around, CPU):
            scored(model)
        assert model.heard == expected, name


@pytest.mark.usefixtures("switched")
def test_a_training_scores_in_the_declared_format_and_not_in_its_own(digits, tiny_recipe, monkeypatch):
    monkeypatch.setattr(loop, "format_of", lambda *_: TF32)  # as on a GPU
    model = Listening()
    recipe = replace(tiny_recipe, method="pgd_at", epochs=1, segment_ends=())
    state = initial_state(recipe, digits)
    state.model, heard = model, []
    for name in ("evaluate", "masking"):
        whole = getattr(loop, name)

        def listened(*arguments, whole=whole):
            model.heard.clear()
            found = whole(*arguments)
            heard.append(set(model.heard))
            return found

        monkeypatch.setattr(loop, name, listened)
    state.optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    next(train(recipe, digits, state))
    assert heard == [IEEE, IEEE]
    assert torch.backends.cuda.matmul.fp32_precision != "ieee", "afterwards as before"


@pytest.mark.usefixtures("switched")
def test_pictures_are_drawn_in_the_declared_format(digits, tiny_recipe):
    state = initial_state(tiny_recipe, digits)
    state.model = Listening()
    with number_format(TF32, CPU):
        examples_png(tiny_recipe, digits, state)
    assert state.model.heard == IEEE


def test_on_a_cpu_no_switch_is_touched(monkeypatch):
    monkeypatch.setattr(formats, "_switches", lambda: pytest.fail("touched"))
    with number_format(FLOAT32, CPU):
        pass


@pytest.mark.parametrize("every", [1, 4, 100])
@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_however_broken_images_are_taken_out_the_counts_are_equal(every, multiple, digits, trained):
    model = fuse_conv_bn(copy.deepcopy(trained.state.model)).double()
    images, labels = digits.validation.fetch(torch.arange(100)).double(), digits.validation.labels[:100]
    threat = Threat("linf", 0.12)
    starts = [images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]

    def attacked(compaction):
        sizes, shown = [], images.clone()

        def step(adversarial, chosen):
            sizes.append(len(chosen))
            objective = lambda logits: misclassification_margin(logits, labels[chosen])  # noqa: E731
            return pgd_step(model, adversarial, images[chosen], objective, threat, 0.02)

        clean, classes = _sifted(model, images, labels, starts, step, 9, shown, compaction)
        return clean, classes, shown, sizes

    clean, classes, shown, _ = attacked(Compaction(1, 0.0, 1))
    others = attacked(Compaction(every, 0.25, multiple))
    assert 5 < int((classes == labels).sum()) < 95, "some break and some survive"
    assert torch.equal(clean, others[0])
    assert torch.equal(classes, others[1])
    torch.testing.assert_close(shown, others[2], rtol=0, atol=1e-12)
    assert all(size == 100 or size % multiple == 0 for size in others[3])


def test_a_gpu_sees_few_sizes_and_few_waits(digits, trained, monkeypatch):
    model = copy.deepcopy(trained.state.model).eval()
    images, labels = digits.validation.fetch(torch.arange(200)), digits.validation.labels[:200]
    sizes = []

    def step(adversarial, chosen):
        sizes.append(len(chosen))
        objective = lambda logits: misclassification_margin(logits, labels[chosen])  # noqa: E731
        return pgd_step(model, adversarial, images[chosen], objective, Threat("linf", 0.2), 0.025)

    with Watched() as watched:
        _sifted(model, images, labels, [images], step, 20, None, Compaction.on(torch.device("cuda")))
    assert {size % 64 for size in sizes[1:]} <= {0, 200 % 64}
    assert len(set(sizes)) <= 4
    assert sum(name in HOST_READS for name in watched.names) <= 2 + 20 // 4 + 1


# The attack on fixed tensors


def plain_attack(recipe, model, images, labels, steps, noise):
    """The attack as the equations have it, without fixed tensors."""
    folded, method, threat = fuse_conv_bn(model.eval()), method_of(recipe), recipe.training_threat
    config = recipe.attack.pgd(steps)
    natural = folded(images).detach()
    return pgd(
        folded, images, method.objective(natural, labels), threat, config, random_start(images, threat, config, noise)
    )


@pytest.fixture
def small():
    recipe = Recipe(
        task=Task(epsilon=0.2), batch_size=16, attack=Attack(epsilon=0.2, step_size=0.04, steps=Schedule(4, 4))
    )
    return recipe, build_model(recipe.network, 1, 10, 0, (8, 8))


def batch_of(digits, first, count):
    return digits.train.fetch(torch.arange(first, first + count)), digits.train.labels[first : first + count]


@pytest.mark.parametrize("graphed", [False, True])
def test_the_attack_on_fixed_tensors_is_the_plain_one_bit_for_bit(digits, small, graphed, monkeypatch):
    recipe, model = small
    captures = []

    def played(function):
        """As a capture does: a few runs to warm up, and then the same function at each replay."""
        captures.append(function)
        for _ in range(inner.WARM_UP):
            function()
        return function

    monkeypatch.setattr(inner, "_capture", played)
    maximise = InnerMaximisation(recipe, method_of(recipe), model, None)
    maximise._graphed = graphed
    results = []
    for first, count in ((0, 16), (16, 16), (32, 9), (41, 16)):
        images, labels = batch_of(digits, first, count)
        given = images.clone()
        found = maximise(images, labels, 4, torch.Generator().manual_seed(first))
        assert torch.equal(found, plain_attack(recipe, model, images, labels, 4, torch.Generator().manual_seed(first)))
        assert torch.equal(images, given)
        results.append((found, found.clone()))
        with torch.no_grad():  # as an optimiser step
            for parameter in model.parameters():
                parameter.mul_(1.01)
    assert all(torch.equal(*pair) for pair in results), "a later attack changes no earlier one"
    assert len(captures) == graphed


def test_a_capture_that_fails_is_said_in_one_line_and_the_attack_goes_on(digits, small, monkeypatch, caplog):
    def refused(function):
        function()
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be reported")

    monkeypatch.setattr(inner, "_capture", refused)
    recipe, model = small
    maximise = InnerMaximisation(recipe, method_of(recipe), model, None)
    maximise._graphed = True
    images, labels = batch_of(digits, 0, 16)
    with caplog.at_level(logging.WARNING, "hcpr_tune"):
        found = [maximise(images, labels, 4, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(found[0], plain_attack(recipe, model, images, labels, 4, torch.Generator().manual_seed(1)))
    assert torch.equal(found[0], found[1])
    assert [record.message for record in caplog.records] == [
        "the attack runs without a CUDA graph: operation not permitted when stream is capturing"
    ]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(f"CUDA error: {LOST}")])
def test_errors_that_are_not_of_the_capture_are_raised(digits, small, monkeypatch, error):
    def refused(function):
        raise error

    monkeypatch.setattr(inner, "_capture", refused)
    recipe, model = small
    maximise = InnerMaximisation(recipe, method_of(recipe), model, None)
    maximise._graphed = True
    with pytest.raises(type(error)):
        maximise(*batch_of(digits, 0, 16), 4, torch.Generator().manual_seed(1))


class Counting(torch.nn.Module):
    """A network of a user's own, which keeps something in Python and rebinds a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.head = 0, LinearHead(64, 10)

    def forward(self, images):
        if self.training:
            self.calls, self.seen = self.calls + 1, self.seen + 1
        return self.head(images.flatten(1)) * (1 + self.calls) + self.seen * torch.arange(10)


def test_a_network_of_one_s_own_is_attacked_as_it_is_now(digits, small):
    recipe, _ = small
    recipe = replace(recipe, method="pgd_at", model=Model(name="my_networks:Counting", head="linear"))
    model = Counting()
    maximise = InnerMaximisation(recipe, method_of(recipe), model, None)
    assert not maximise._graphed
    images, labels = batch_of(digits, 0, 16)
    for _ in range(2):
        found = maximise(images, labels, 4, torch.Generator().manual_seed(1))
        plain = plain_attack(recipe, model, images, labels, 4, torch.Generator().manual_seed(1))
        assert torch.equal(found, plain)
        model.train()(images)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "preact_resnet18"])
def test_a_folded_copy_is_brought_up_to_date_in_place(name):
    model = build_model(Model(name=name), 3, 10, 0).eval()
    copy = FoldedCopy(model)
    kept = {key: tensor.data_ptr() for key, tensor in copy.network.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.01)
    copy.refresh()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(copy.network(images), fuse_conv_bn(model)(images))
    assert {key: tensor.data_ptr() for key, tensor in copy.network.state_dict(keep_vars=True).items()} == kept


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "preact_resnet18"])
def test_weights_in_the_attack_s_format_are_cast_once_and_not_in_every_step(name):
    model = build_model(Model(name=name), 3, 10, 0).eval().requires_grad_(False)
    images = torch.rand(2, 3, 32, 32)
    passes = []
    for folded in (FoldedCopy(model), FoldedCopy(model, torch.bfloat16)):
        with Watched() as watched:
            passes.append((forward_in(BFLOAT16, folded.network)(images), watched.names.count("_to_copy")))
    assert torch.equal(passes[0][0], passes[1][0]), "the bits of autocast"
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    assert passes[1][1] <= passes[0][1] - convolutions


# Faults


def test_the_driver_and_a_worker_without_a_gpu_start_no_context(monkeypatch):
    def touched(*_, **__):
        raise AssertionError("CUDA was touched")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("mem_get_info", "current_device", "synchronize", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert len(load_data(Task()).train) > 1000


ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    "words",
    [
        ILLEGAL,
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
    ],
)
def test_a_broken_context_is_known_by_its_words(words):
    assert broken(RuntimeError(words)).startswith("the CUDA context is broken: CUDA error: ")
    wrapped = ValueError("the method failed")
    wrapped.__cause__ = RuntimeError(words)
    assert broken(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError(ILLEGAL),
    ],
)
def test_other_errors_break_no_context(error):
    assert broken(error) is None


@pytest.mark.parametrize("words", [ILLEGAL, "CUDA out of memory. Tried to allocate 20.00 GiB"])
def test_a_picture_that_cannot_be_drawn_hides_no_broken_context(digits, tiny_recipe, monkeypatch, words):
    def undrawn(*_):
        raise RuntimeError(words)

    monkeypatch.setattr(session, "examples_png", undrawn)
    state = initial_state(tiny_recipe, digits)
    if words == ILLEGAL:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            session._examples(tiny_recipe, digits, state)
    else:
        assert session._examples(tiny_recipe, digits, state) == (b"", f"RuntimeError: {words}")


def test_where_words_leave_it_open_the_gpu_is_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert broken(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")) is None

    def lost():
        raise RuntimeError(ILLEGAL)

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert broken(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))


def test_four_quarters_of_a_gpu_and_their_contexts_fit_into_it(monkeypatch):
    total, caps = 80 * 10**9, []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total, total))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: caps.append(fraction))
    gpu_memory.cap(0.25, torch.device("cuda:0"))
    assert 4 * (caps[0] * total + gpu_memory.CONTEXT_BYTES) <= total
    assert caps[0] > 0.24
