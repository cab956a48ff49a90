"""The fused loop equals the plain path step by step, and both resume bit for bit."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrow.engines.fused_learner import FusedLearner
from regrow.engines.learner import Learner, PlainLearner, build_learner
from regrow.engines.training import Training
from regrow.errors import ConfigError, DataError, StateError
from regrow.experiments.checkpoint import decode, encode
from regrow.methods import L2, Backprop, ContinualBackprop, Method, RandomReplacement, ShrinkAndPerturb
from regrow.networks.layers.dropout import Dropout
from regrow.streams.permuted_images import PermutedImages
from regrow.streams.sources import load

pytestmark = pytest.mark.xdist_group("learner")  # one process, so that the fixtures below are made once

ENGINES = ("plain", "fused")
WINDOW = 100
OFTEN = {"replacement_rate": 3e-3, "maturity_threshold": 50}
EACH_STEP = ContinualBackprop(**OFTEN, weight_sums="each_step")
ADAPTABLE = replace(EACH_STEP, utility_rule="adaptable_contribution")


@dataclass(frozen=True)
class Case:
    """Methods on a network. `activation` None is for no hidden layer."""

    methods: Sequence[Method]
    seed: int = 0
    activation: Callable[[], nn.Module] | None = nn.ReLU
    training: Training = Training()
    learning_rate: float = 0.01
    dropout: float = 0.0
    steps: int = 2000

    @property
    def tolerance(self) -> float:
        """How far weights may part. Adam divides by how large gradients are, and with them roundings grow."""
        return 1e-4 if self.training.optimizer == "adam" else 2e-6

    @property
    def replaces(self) -> bool:
        return any(isinstance(method, ContinualBackprop | RandomReplacement) for method in self.methods)


ERROR = Training("squared_error")
# A pre-activation within rounding of 0 may be cut by one ReLU and passed by the other; from there on the two engines
# are two different runs, equally right. The seeds are chosen so that in the plain run none comes nearer to 0 than
# several times the rounding that has piled up by the end (1e-6).
CASES: dict[str, Case] = {
    "backprop": Case([Backprop()], 4, steps=3200),
    "cbp-each-step": Case([EACH_STEP], 0, steps=3200),
    "cbp-when-due": Case([ContinualBackprop(**OFTEN)], 3, steps=3200),
    "cbp-bernoulli": Case([ContinualBackprop(**OFTEN, budget="bernoulli")], 3, steps=3200),
    "random": Case([RandomReplacement(**OFTEN)], 1, steps=3200),
    "random-bernoulli": Case([RandomReplacement(**OFTEN, budget="bernoulli")], 1, steps=3200),
    "l2": Case([L2(1e-3)], 3, steps=3200),
    "shrink-and-perturb": Case([ShrinkAndPerturb(1e-3, 1e-4)], 0, steps=3200),
    "shrink-and-perturb-10": Case([ShrinkAndPerturb(1e-3, 1e-4, period=10)], 1, steps=3200),
    "cbp-l2": Case([EACH_STEP, L2(1e-3)], 0, steps=3200),
    "all": Case(
        [L2(1e-3), Backprop(), ShrinkAndPerturb(1e-3, 1e-4, period=7), ContinualBackprop(**OFTEN)], 19, steps=3200
    ),
    "leaky-relu": Case([EACH_STEP], 5, lambda: nn.LeakyReLU(0.2)),
    "tanh": Case([EACH_STEP], 0, nn.Tanh, ERROR),
    "sigmoid": Case([ContinualBackprop(**OFTEN)], 0, nn.Sigmoid),
    "elu": Case([RandomReplacement(**OFTEN)], 0, lambda: nn.ELU(0.7), ERROR),
    "swish": Case([EACH_STEP, L2(1e-3)], 0, nn.SiLU),
    "adaptable": Case([ADAPTABLE], 0),
    "adaptable-when-due": Case([replace(ADAPTABLE, weight_sums="when_due", budget="bernoulli")], 0, nn.Tanh),
    "adaptable-all": Case([ADAPTABLE, L2(1e-3), ShrinkAndPerturb(1e-3, 1e-4, period=7)], 0, nn.Sigmoid, ERROR),
    "adam": Case([L2(1e-3)], 3, nn.ReLU, Training(optimizer="adam"), 1e-3),
    "adam-cbp": Case([EACH_STEP], 7, nn.ReLU, Training(optimizer="adam"), 1e-3),
    "adam-adaptable": Case(
        [ADAPTABLE, ShrinkAndPerturb(1e-3, 1e-4)], 3, nn.Tanh, replace(ERROR, optimizer="adam"), 1e-3
    ),
    "dropout": Case([EACH_STEP, L2(1e-3)], 4, dropout=0.3),
    "dropout-adam": Case([ADAPTABLE], 0, nn.Tanh, Training(optimizer="adam"), 1e-3, dropout=0.1),
    "linear": Case([L2(1e-3), ShrinkAndPerturb(1e-3, 1e-4, period=7)], 0, None, ERROR),
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    source = load()
    task = PermutedImages(source.images, source.labels, passes=2, seed=0, white=source.white).task(0)
    return task.inputs[:3200], task.labels[:3200]


def network(seed: int = 0, activation: Callable[[], nn.Module] | None = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    if activation is None:
        return nn.Sequential(nn.Linear(64, 10))
    first, second = ([activation()] + [Dropout(dropout, 2 * seed + k)] * (dropout > 0) for k in (0, 1))
    return nn.Sequential(nn.Linear(64, 32), *first, nn.Linear(32, 32), *second, nn.Linear(32, 10))


def learner_for(case: Case, engine: str, seed: int | None = None) -> Learner:
    seed = case.seed if seed is None else seed
    made = network(seed, case.activation, case.dropout)
    return build_learner(
        made, case.learning_rate, case.methods, init="kaiming_uniform", seed=seed, engine=engine, training=case.training
    )


def pair(case: Case) -> tuple[PlainLearner, FusedLearner]:
    learners = [learner_for(case, engine) for engine in ENGINES]
    assert isinstance(learners[0], PlainLearner) and isinstance(learners[1], FusedLearner)
    return learners[0], learners[1]


def labels_for(case: Case, labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 10).float() if case.training.loss == "squared_error" else labels


def remembered(learner: PlainLearner) -> dict[str, Tensor]:
    """What the attachment remembers of the units, front to back in one tensor each."""
    saved: dict[str, Tensor] = learner.state_dict()["attachment"]
    joined: dict[str, list[Tensor]] = {}
    for key, value in saved.items():
        joined.setdefault(key.rpartition(".")[2], []).append(value.flatten())
    names = {"contribution": "running", "activation": "running", "mean_activation": "mean_activation", "born": "born"}
    return {names[name]: torch.cat(parts) for name, parts in joined.items() if name in names}


@pytest.mark.parametrize("name", CASES)
def test_fused_equals_plain(name: str, digits: tuple[Tensor, Tensor]) -> None:
    case = CASES[name]
    plain, fused = pair(case)
    for start in range(0, case.steps, WINDOW):
        inputs, labels = (whole[start : start + WINDOW] for whole in digits)
        labels = labels_for(case, labels)
        judged, expected = fused.learn(inputs, labels), plain.learn(inputs, labels)
        torch.testing.assert_close(judged, expected, rtol=1e-4, atol=case.tolerance)
        # Step, group, unit of each replacement, in order.
        assert plain.events == fused.events
        for key, value in plain.network().state_dict().items():
            torch.testing.assert_close(fused.network().state_dict()[key], value, rtol=0, atol=case.tolerance)
        state = fused.state_dict()
        for key, value in remembered(plain).items():
            if key == "born":
                assert torch.equal(state["born"], value)
            else:
                torch.testing.assert_close(state[key], value, rtol=1e-5, atol=case.tolerance)
    assert plain.replacements() == fused.replacements()
    assert len(fused.events) == sum(fused.replacements().values())
    assert len(fused.events) > case.steps / 8 or not case.replaces


@pytest.mark.parametrize("name", ["adaptable", "adaptable-all", "adam-adaptable", "cbp-each-step"])
def test_sums_that_are_kept_up_to_date_are_those_of_the_weights(name: str, digits: tuple[Tensor, Tensor]) -> None:
    case = CASES[name]
    learner = learner_for(case, "fused")
    learner.learn(digits[0][:999], labels_for(case, digits[1][:999]))  # at the next step they are taken anew
    assert learner.events
    state, weights = learner.state_dict(), [layer for layer in learner.network() if isinstance(layer, nn.Linear)]
    below, above = (torch.cat([layer.weight.abs().sum(dim) for layer in weights]).double() for dim in (0, 1))
    torch.testing.assert_close(state["outgoing"][64:].double(), below[64:], rtol=2e-6, atol=0)
    if name != "cbp-each-step":
        torch.testing.assert_close(state["incoming"][64:128], above[:64], rtol=2e-6, atol=0)


def go_on(folder: Path, name: str, engine: str, seed: int, stop: int, start: int = 0) -> None:
    """Learn examples `start` to `stop`, from the state saved before `start`, and save what was reached."""
    case = CASES[name]
    learner = learner_for(case, engine, seed)
    if start:
        learner.load_state_dict(decode(folder / f"{name} {engine} {start}")["learner"])
    source = load()
    task = PermutedImages(source.images, source.labels, seed=0, white=source.white).task(0)
    labels = labels_for(case, task.labels)
    saved = {"judged": learner.learn(task.inputs[start:stop], labels[start:stop])[-100:]}
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
        "from tests.engines.test_learner import CASES, ENGINES, go_on\n"
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


@pytest.mark.parametrize("name", ["all", "cbp-bernoulli", "random-bernoulli", "shrink-and-perturb", "dropout-adam"])
def test_how_examples_are_cut_into_chunks_changes_no_bit(name: str, digits: tuple[Tensor, Tensor]) -> None:
    states = []
    for chunk in (1, 97, 4096):
        case = CASES[name]
        made = network(0, case.activation, case.dropout)
        learner = FusedLearner(made, 0.01, case.methods, seed=3, training=case.training, chunk=chunk)
        learner.learn(digits[0][:600], labels_for(case, digits[1][:600]))
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
    assert build_learner(network(), 0.01, [ContinualBackprop(utility_rule="first_order")]).engine == "plain"


def test_engine_errors() -> None:
    with pytest.raises(ConfigError, match="There is no engine 'fuse'; did you mean 'fused'"):
        build_learner(network(), 0.01, [Backprop()], engine="fuse")
    with pytest.raises(
        ConfigError, match="engine='fused' cannot train this network, because module '1' is a GELU.*'plain'"
    ):
        build_learner(nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)), 0.01, [Backprop()], engine="fused")


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


@pytest.mark.parametrize("labels", [torch.zeros(2, dtype=torch.int64), torch.zeros(2), torch.zeros(2, 9)])
def test_values_that_do_not_fit(labels: Tensor) -> None:
    with pytest.raises(DataError, match=r"labels is torch\..*\], but must be float32 \[2, 10\]\."):
        FusedLearner(network(), 0.01, [Backprop()], training=ERROR).learn(torch.zeros(2, 64), labels)


def test_state_of_another_learner_is_refused() -> None:
    plain, fused = pair(Case([ContinualBackprop()]))
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
