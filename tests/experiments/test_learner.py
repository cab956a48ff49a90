"""The fused loop equals the plain path step by step, and both resume bit for bit."""

import subprocess
import sys
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrow.errors import ConfigError, DataError, StateError
from regrow.experiments.checkpoint import decode, encode
from regrow.experiments.fused_learner import FusedLearner
from regrow.experiments.learner import PlainLearner, build_learner
from regrow.methods import L2, Backprop, ContinualBackprop, Method, RandomReplacement, ShrinkAndPerturb
from regrow.streams.permuted_images import PermutedImages
from regrow.streams.sources import load

pytestmark = pytest.mark.xdist_group("learner")  # one process, so that the fixtures below are made once

ENGINES = ("plain", "fused")
STEPS, WINDOW = 3200, 100
OFTEN = {"replacement_rate": 3e-3, "maturity_threshold": 50}
# A pre-activation within rounding of 0 may be cut by one ReLU and passed by the other; from there on the two engines
# are two different runs, equally right. The seeds are chosen so that in the plain run none comes nearer to 0 than
# several times the rounding that has piled up by the end (1e-6).
CASES: dict[str, tuple[list[Method], int]] = {
    "backprop": ([Backprop()], 4),
    "cbp-each-step": ([ContinualBackprop(**OFTEN, weight_sums="each_step")], 0),
    "cbp-when-due": ([ContinualBackprop(**OFTEN)], 3),
    "cbp-bernoulli": ([ContinualBackprop(**OFTEN, budget="bernoulli")], 3),
    "random": ([RandomReplacement(**OFTEN)], 1),
    "random-bernoulli": ([RandomReplacement(**OFTEN, budget="bernoulli")], 1),
    "l2": ([L2(1e-3)], 3),
    "shrink-and-perturb": ([ShrinkAndPerturb(1e-3, 1e-4)], 0),
    "shrink-and-perturb-10": ([ShrinkAndPerturb(1e-3, 1e-4, period=10)], 1),
    "cbp-l2": ([ContinualBackprop(**OFTEN, weight_sums="each_step"), L2(1e-3)], 0),
    "all": ([L2(1e-3), Backprop(), ShrinkAndPerturb(1e-3, 1e-4, period=7), ContinualBackprop(**OFTEN)], 7),
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    source = load()
    task = PermutedImages(source.images, source.labels, passes=2, seed=0, white=source.white).task(0)
    return task.inputs[:STEPS], task.labels[:STEPS]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def pair(methods: Sequence[Method], seed: int) -> tuple[PlainLearner, FusedLearner]:
    learners = [
        build_learner(network(seed), 0.01, methods, init="kaiming_uniform", seed=seed, engine=engine)
        for engine in ("plain", "fused")
    ]
    assert isinstance(learners[0], PlainLearner) and isinstance(learners[1], FusedLearner)
    return learners[0], learners[1]


def running_means(learner: PlainLearner) -> dict[str, Tensor]:
    """What the attachment remembers of the units, front to back in one tensor each."""
    saved: dict[str, Tensor] = learner.state_dict()["attachment"]
    joined: dict[str, list[Tensor]] = {}
    for key, value in saved.items():
        joined.setdefault(key.rpartition(".")[2], []).append(value.flatten())
    return {"running": torch.cat(joined.get("contribution") or joined["activation"]), "born": torch.cat(joined["born"])}


@pytest.mark.parametrize("name", CASES)
def test_fused_equals_plain(name: str, digits: tuple[Tensor, Tensor]) -> None:
    methods, seed = CASES[name]
    plain, fused = pair(methods, seed)
    for start in range(0, STEPS, WINDOW):
        inputs, labels = (whole[start : start + WINDOW] for whole in digits)
        assert torch.equal(plain.learn(inputs, labels), fused.learn(inputs, labels))
        # Step, group, unit of each replacement, in order.
        assert plain.events == fused.events
        for key, value in plain.network().state_dict().items():
            torch.testing.assert_close(fused.network().state_dict()[key], value, rtol=0, atol=2e-6)
        if "cbp" in name or name == "all":
            state, expected = fused.state_dict(), running_means(plain)
            assert torch.equal(state["born"], expected["born"])
            torch.testing.assert_close(state["running"], expected["running"], rtol=1e-5, atol=1e-6)
    assert plain.replacements() == fused.replacements()
    assert len(fused.events) == sum(fused.replacements().values())
    assert len(fused.events) > 400 or "cbp" not in name and "random" not in name


def go_on(folder: Path, name: str, engine: str, seed: int, stop: int, start: int = 0) -> None:
    """Learn examples `start` to `stop`, from the state saved before `start`, and save what was reached."""
    learner = build_learner(network(seed), 0.01, CASES[name][0], seed=seed, engine=engine)
    if start:
        learner.load_state_dict(decode(folder / f"{name} {engine} {start}")["learner"])
    source = load()
    task = PermutedImages(source.images, source.labels, seed=0, white=source.white).task(0)
    saved = {"right": learner.learn(task.inputs[start:stop], task.labels[start:stop])[-100:]}
    saved |= {"learner": learner.state_dict(), "replacements": learner.replacements()}
    (folder / f"{name} {engine} {stop}").write_bytes(encode(saved))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one other process made of all cases saved by this one at step 237."""
    folder = tmp_path_factory.mktemp("resumed")
    for name, engine in product(CASES, ENGINES):
        go_on(folder, name, engine, seed=0, stop=237)
    call = (
        "import sys; from itertools import product; from pathlib import Path; import torch\n"
        "from tests.experiments.test_learner import CASES, ENGINES, go_on\n"
        "torch.set_num_threads(1)\n"
        "for name, engine in product(CASES, ENGINES): go_on(Path(sys.argv[1]), name, engine, 1, 500, start=237)"
    )
    subprocess.run([sys.executable, "-c", call, str(folder)], cwd=Path(__file__).parents[2], check=True)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_resume_in_a_new_process_is_bit_identical(name: str, engine: str, resumed: Path, tmp_path: Path) -> None:
    go_on(tmp_path, name, engine, seed=0, stop=500)
    file = f"{name} {engine} 500"
    assert_same(decode(tmp_path / file), decode(resumed / file))


@pytest.mark.parametrize("engine", ["plain", "fused"])
def test_resume_from_before_the_first_example(engine: str, digits: tuple[Tensor, Tensor]) -> None:
    first, second = (
        build_learner(network(seed), 0.01, [ContinualBackprop(**OFTEN)], "lecun_uniform", 5, engine) for seed in (0, 1)
    )
    second.load_state_dict(first.state_dict())
    for learner in (first, second):
        learner.learn(digits[0][:300], digits[1][:300])
    assert_same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("name", ["all", "cbp-bernoulli", "random-bernoulli", "shrink-and-perturb"])
def test_how_examples_are_cut_into_chunks_changes_no_bit(name: str, digits: tuple[Tensor, Tensor]) -> None:
    states = []
    for chunk in (1, 97, 4096):
        learner = FusedLearner(network(), 0.01, CASES[name][0], seed=3, chunk=chunk)
        learner.learn(digits[0][:600], digits[1][:600])
        states.append(learner.state_dict())
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])


@pytest.mark.parametrize("engine", ["plain", "fused"])
def test_nan_goes_on_with_one_warning_a_group_and_the_same_choices(engine: str, digits: tuple[Tensor, Tensor]) -> None:
    inputs, labels = digits[0][:400].clone(), digits[1][:400]
    inputs[200, 3] = float("nan")
    method = ContinualBackprop(**OFTEN, weight_sums="each_step")
    learner = build_learner(network(), 0.01, [method], init="kaiming_uniform", seed=0, engine=engine)
    undisturbed = build_learner(network(), 0.01, [method], init="kaiming_uniform", seed=0, engine=engine)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.learn(inputs[:300], labels[:300])
        learner.learn(inputs[300:], labels[300:])
    told = sorted(str(warning.message) for warning in caught)
    assert len(told) == 2
    for message, group in zip(told, ("'0'", "'2'"), strict=True):
        assert message.startswith(f"NaN or infinity in the activations or weights of 32 of 32 units of group {group}")
    undisturbed.learn(digits[0][:400], labels)
    assert learner.replacements() == undisturbed.replacements()
    assert [event for event in learner.events if event.step <= 200] == [
        event for event in undisturbed.events if event.step <= 200
    ]


def test_prediction_of_equal_logits_is_the_first_class(digits: tuple[Tensor, Tensor]) -> None:
    for engine in ("plain", "fused"):
        silent = network()
        nn.init.zeros_(silent[-1].weight)
        nn.init.zeros_(silent[-1].bias)
        learner = build_learner(silent, 0.01, [Backprop()], engine=engine)
        assert learner.learn(digits[0][:1], torch.tensor([0])).tolist() == [True]


def test_no_hidden_layer_and_five_hidden_layers(digits: tuple[Tensor, Tensor]) -> None:
    for widths in ([64, 10], [64, 9, 7, 12, 5, 8, 10]):
        learners = []
        for engine in ("plain", "fused"):
            torch.manual_seed(0)
            layers = [
                layer for sizes in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(*sizes), nn.ReLU())
            ]
            learners.append(build_learner(nn.Sequential(*layers[:-1]), 0.01, [L2(1e-3)], engine=engine))
            learners[-1].learn(digits[0][:300], digits[1][:300])
        for one, two in zip(*(learner.network().parameters() for learner in learners), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=2e-6)


def test_auto_takes_the_fused_loop_where_it_can() -> None:
    assert build_learner(network(), 0.01, [ContinualBackprop()]).engine == "fused"
    assert build_learner(network(), 0.01, [ContinualBackprop(utility_rule="adaptable_contribution")]).engine == "plain"


def test_engine_errors() -> None:
    with pytest.raises(ConfigError, match="There is no engine 'fuse'; did you mean 'fused'"):
        build_learner(network(), 0.01, [Backprop()], engine="fuse")
    with pytest.raises(
        ConfigError, match="engine='fused' cannot train this network, because module '1' is a Tanh.*'plain'"
    ):
        build_learner(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), 0.01, [Backprop()], engine="fused")


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (
            torch.zeros(2, 63),
            torch.zeros(2, dtype=torch.int64),
            r"inputs is torch.float32 \[2, 63\].*float32 \[n, 64\]",
        ),
        (torch.zeros(2, 64), torch.zeros(2), r"labels is torch.float32 \[2\], but must be int64 \[2\]"),
        (torch.zeros(2, 64), torch.tensor([0, 10]), "labels go from 0 to 10, but the network has 10 outputs"),
        (torch.zeros(2, 64), torch.tensor([-1, 1]), "labels go from -1 to 1"),
    ],
)
def test_examples_that_do_not_fit(inputs: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FusedLearner(network(), 0.01, [Backprop()]).learn(inputs, labels)


def test_state_of_another_learner_is_refused() -> None:
    plain, fused = pair([ContinualBackprop()], 0)
    other = FusedLearner(network(), 0.01, [ContinualBackprop(decay_rate=0.5)])
    with pytest.raises(StateError, match=r"saved by another one(.|\n)*decay_rate=0.5(.|\n)*decay_rate=0.99"):
        fused.load_state_dict(other.state_dict())
    with pytest.raises(StateError, match="not by the fused engine"):
        fused.load_state_dict(plain.state_dict())
    with pytest.raises(StateError, match="saved by the fused engine"):
        plain.load_state_dict(fused.state_dict())


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_same(value, two[key])
        elif isinstance(value, Tensor):
            assert torch.equal(value, two[key]), key
        else:
            assert value == two[key], key
