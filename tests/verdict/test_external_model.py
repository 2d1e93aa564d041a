"""Weights from elsewhere: the same model in any container, nothing in a file is executed, a misfit gives one line."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.storage.checkpoint_store import store_at
from hcpr_tune.training.models.classifier import build_model, load_weights
from hcpr_tune.training.recipe import Model
from hcpr_tune.verdict.driver import training_name
from hcpr_tune.verdict.external_model import given_candidate, keep

COSINE = [("model.head", "cosine"), ("model.width", 4)]


@pytest.fixture(scope="module")
def weights():
    """A model's weights, drawn anew."""
    model = build_model(Model(width=4), 1, 10, seed=3, image_size=(8, 8))
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def read(study, path, scratch, values=COSINE, architecture="small_cnn"):
    return given_candidate(study, path, architecture, values, scratch)


CONTAINERS = {
    "plain.pt": lambda weights: weights,
    "nested.pth": lambda weights: {"state_dict": weights, "epoch": 3, "best": 0.5},
    "named.pt": lambda weights: {"model": weights},
    "parallel.pt": lambda weights: {"module." + name: tensor for name, tensor in weights.items()},
    "both.pt": lambda weights: {"state_dict": {"module." + name: tensor for name, tensor in weights.items()}},
    "parameters.pt": lambda weights: {
        name: nn.Parameter(tensor, requires_grad=False) for name, tensor in weights.items()
    },
}


@pytest.mark.parametrize("name", [*CONTAINERS, "x.safetensors", "parallel.safetensors"])
def test_any_container_holds_the_same_model(small_study, weights, tmp_path, scratch, name):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        prefix = "module." * name.startswith("parallel")
        save_file({prefix + one: tensor for one, tensor in weights.items()}, path, metadata={"of": "somebody"})
    else:
        torch.save(CONTAINERS[name](weights), path)
    torch.save(weights, tmp_path / "reference.pt")
    candidate, file = read(small_study, path, scratch)
    model = build_model(candidate.recipe.network, 1, 10, 0, (8, 8))
    load_weights(model, file)
    assert all(torch.equal(tensor, weights[one]) for one, tensor in model.state_dict().items())
    assert candidate.name == f"model {path.stem}"
    assert candidate.weights == read(small_study, tmp_path / "reference.pt", scratch)[0].weights
    assert candidate.recipe.task == small_study.recipe.task


def test_other_weights_are_another_model(small_study, weights, tmp_path, scratch):
    torch.save(weights, tmp_path / "one.pt")
    torch.save({name: tensor + 1 for name, tensor in weights.items()}, tmp_path / "other.pt")
    one, other = (read(small_study, tmp_path / name, scratch)[0] for name in ("one.pt", "other.pt"))
    assert one.model(0).id != other.model(0).id


def test_an_ordinary_linear_head_can_be_judged_beside_a_method_on_cosines(small_study, tmp_path, scratch):
    linear = build_model(Model(width=4, head="linear"), 1, 10, seed=0, image_size=(8, 8))
    torch.save(linear.state_dict(), tmp_path / "linear.pt")
    assert small_study.recipe.method == "hcpr"
    candidate, _ = read(small_study, tmp_path / "linear.pt", scratch, [("model.width", 4)])
    assert candidate.recipe.network.head == "linear"
    assert candidate.recipe.evaluation == small_study.recipe.evaluation


def test_tensors_that_share_memory_are_no_obstacle(small_study, weights, tmp_path, scratch):
    whole = torch.cat([tensor.flatten().float() for tensor in weights.values()])
    views, at = {}, 0
    for name, tensor in weights.items():
        views[name] = whole[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    torch.save(views, tmp_path / "views.pt")
    torch.save({name: tensor.clone() for name, tensor in views.items()}, tmp_path / "apart.pt")
    together, apart = (read(small_study, tmp_path / f"{name}.pt", scratch)[0] for name in ("views", "apart"))
    assert together.weights == apart.weights


class Bomb:
    """What executes code when a pickle with it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_pickle_with_code_is_refused_and_not_executed(small_study, weights, tmp_path, scratch):
    mark = tmp_path / "executed"
    torch.save({"state_dict": weights, "extra": Bomb(mark)}, tmp_path / "bomb.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Bomb(mark)))
    for name in ("bomb.pt", "bare.pt"):
        with pytest.raises(InputError, match=f"{name} cannot be read as weights alone"):
            read(small_study, tmp_path / name, scratch)
    assert not mark.exists()


def test_a_whole_pickled_model_is_refused(small_study, tmp_path, scratch):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"cannot be read as weights alone.*save model.state_dict\(\)"):
        read(small_study, tmp_path / "model.pt", scratch)


@pytest.mark.parametrize("content", [[1, 2], {}, {"lr": 0.1}, {0: torch.zeros(1)}, torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(small_study, tmp_path, scratch, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"is not a state dict \(tensors by name\)"):
        read(small_study, tmp_path / "x.pt", scratch)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_damaged_file_is_refused(small_study, tmp_path, scratch, name):
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=f"--model .*{name} cannot be read"):
        read(small_study, tmp_path / name, scratch)


def test_a_missing_file_is_refused(small_study, tmp_path, scratch):
    with pytest.raises(InputError, match=r"nothing.pt: there is no such file"):
        read(small_study, tmp_path / "nothing.pt", scratch)


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("small_cnn", [("model.head", "cosine"), ("model.width", 8)]),
        ("resnet18", []),
    ],
)
def test_weights_of_another_architecture_are_refused(small_study, weights, tmp_path, scratch, architecture, values):
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(InputError) as refused:
        read(small_study, tmp_path / "x.pt", scratch, values, architecture)
    words = str(refused.value)
    assert words.startswith(f"--model {tmp_path / 'x.pt'} does not hold the weights of this recipe's model")
    assert words.endswith("give the --arch that it was trained with, and --set model.head=cosine or other fields of it")
    assert "\n" not in words
    assert "scratch" not in words


def test_a_cosine_head_is_not_taken_for_a_linear_one(small_study, weights, tmp_path, scratch):
    # Their tensors have the same names and shapes.
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(InputError, match="rows of length 1, as cosine heads do; say which it is"):
        read(small_study, tmp_path / "x.pt", scratch, [("model.width", 4)])
    told = [("model.width", 4), ("model.head", "linear")]
    assert read(small_study, tmp_path / "x.pt", scratch, told)[0].recipe.network.head == "linear"


def test_an_unknown_architecture_is_refused(small_study, weights, tmp_path, scratch):
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"model.name must be one of"):
        read(small_study, tmp_path / "x.pt", scratch, [], "small_cnnn")


def test_workers_find_the_weights_where_those_of_trainings_lie(small_study, weights, tmp_path, scratch):
    torch.save(weights, tmp_path / "x.pt")
    candidate, file = read(small_study, tmp_path / "x.pt", scratch)
    own = StudyFolder(tmp_path / "one" / "verdict")
    for _ in range(2):  # a second session puts them there again
        keep(own, candidate.model(0), 0, file)
    copy = tmp_path / "copy.safetensors"
    assert store_at(own.checkpoint_store.address).copy_weights(training_name(candidate.model(0).id), 0, copy) == ""
    assert copy.read_bytes() == file.read_bytes()


def test_outputs_in_another_order_are_put_into_the_tasks(small_study, weights, tmp_path, scratch):
    torch.save(weights, tmp_path / "x.pt")
    said: list[str] = []
    given = ["7", *(str(one) for one in range(10) if one != 7)]
    _, file = given_candidate(small_study, tmp_path / "x.pt", "small_cnn", COSINE, scratch, given, said.append)
    models = [build_model(Model(width=4), 1, 10, 0, (8, 8)).eval() for _ in range(2)]
    models[0].load_state_dict(weights)
    load_weights(models[1], file)
    images = torch.rand(5, 1, 8, 8)
    theirs, ours = (model(images) for model in models)
    assert torch.equal(ours[:, 7], theirs[:, 0])
    assert torch.equal(ours[:, 0], theirs[:, 1])
    assert said == []
    given_candidate(small_study, tmp_path / "x.pt", "small_cnn", COSINE, scratch, say=said.append)
    assert said == [
        "classes      the model's outputs are taken in this order: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9;"
        " use --classes for another one"
    ]


@pytest.mark.parametrize("given", [["0"], ["0", *"0123456789"], [*"012345678", "dog"]])
def test_a_list_of_other_classes_is_refused(small_study, weights, tmp_path, scratch, given):
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(InputError, match="--classes must name each class of the task once, 0, 1, 2"):
        given_candidate(small_study, tmp_path / "x.pt", "small_cnn", COSINE, scratch, given)
