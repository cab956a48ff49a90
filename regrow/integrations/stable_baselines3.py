"""regrow as a callback of Stable-Baselines3.

model.learn(100_000, callback=RegrowCallback("cbp"))
"""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from regrow.attachment.attach import attach
from regrow.attachment.attachment import Attachment
from regrow.attachment.clock import Time
from regrow.attachment.service import Request, why_not_served
from regrow.errors import ConfigError, DependencyError, ModelError, StateError
from regrow.methods import Method, UnitMethod, WeightMethod, method_named
from regrow.units.initial import Init
from regrow.units.table import format_reasons
from regrow.units.trace import find_units
from regrow.units.wrappers import without_wrapper

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.dqn.policies import DQNPolicy
    from stable_baselines3.sac.policies import SACPolicy
    from stable_baselines3.td3.policies import TD3Policy
except ImportError as error:
    raise DependencyError(
        "regrow.integrations.stable_baselines3 needs Stable-Baselines3, which cannot be imported: "
        f"pip install 'regrow[sb3]' ({error})."
    ) from error


class RegrowCallback(BaseCallback):
    """Puts methods to work on a model of Stable-Baselines3 while it learns.

    One attachment for each optimizer: of PPO, A2C and DQN the policy's, of SAC, TD3 and DDPG the actor's and the
    critic's. The entropy coefficient has no units. A features extractor that actor and critic share
    (`share_features_extractor=True`) is the actor's, and keeps its last layer, which the critic reads too; with
    `use_sde=True` the actor keeps the layer that the noise reads. What acts, evaluates or is a target runs without grad
    and does not count, nor does the critic's forward in the actor's loss. Targets follow replacements as all else.

    `learn` called again, with this callback or with another that asks for the same, goes on with the attachments that
    are there. Between calls, and in a `learn` without the callback, they are at rest.

    `model.save` writes their state, and the next `learn` with such a callback after `load` goes on from it bit for
    bit, as far as regrow goes. Stable-Baselines3 itself does not save the environment, the normalisation of
    `VecNormalize`, the replay buffer (`save_replay_buffer` does), a rollout that has begun, or the states of the
    random generators of torch, NumPy, Python and CUDA. `load` seeds generators, spaces and environment anew if the
    model has a seed; given an environment, it forgets the last observation and resets (`force_reset`).

    The logger gets "regrow/replacements" and "regrow/steps", with several attachments "regrow/actor/replacements" and
    so on; and for each group of units what `Attachment.metrics` has, in files and TensorBoard, not on the screen.

    Args:
        methods: a method, its name, or several, as for `regrow.attach`.
        init: law of new incoming weights, as for `regrow.attach`. By default that of the layers as torch makes them,
            and not the orthogonal one (`ortho_init`) with which policies of PPO and A2C begin.
        seed: of everything that is drawn; by default the model's seed, or 0 if it has none.
        time: what a step is for units, as for `regrow.attach`: "step_sizes" where the learning rate falls to 0.
        verbose: print the table of units when methods are attached, if at least 1.

    Attributes:
        attachments: by the name of what the optimizer trains: "policy", or "actor" and "critic". Empty before `learn`.

    Raises:
        ConfigError: an unknown method; when `learn` begins also a policy that it does not know, or a method that
            cannot act on a network that is called in parts.
        ModelError: when `learn` begins: the policy has no hidden units that a method could replace.
        StateError: when `learn` begins: the model has, or was saved with, other methods or settings.
    """

    def __init__(
        self,
        methods: Method | str | Sequence[Method | str],
        *,
        init: Init = None,
        seed: int | None = None,
        time: Time = "steps",
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        several: Sequence[Any] = methods if isinstance(methods, list | tuple) else [methods]
        self.methods = tuple(method_named(item) if isinstance(item, str) else item for item in several)
        self.init = init
        self.seed = seed
        self.time: Time = time
        self.attachments: dict[str, Attachment] = {}

    def task_changed(self) -> None:
        """Say that the task has changed, to all attachments: see `Attachment.task_changed`."""
        for plastic in self.attachments.values():
            plastic.task_changed()

    def detach(self) -> None:
        """Take the methods off the model, with all that is remembered of them."""
        present = self._at_work() if self.attachments else None
        if present is not None and present.attachments is self.attachments:
            present.detach()
            delattr(self.model, _ATTRIBUTE)
        self.attachments = {}

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.attachments.values())) or f"regrow: {', '.join(map(str, self.methods))}"

    def _at_work(self) -> "_AtWork | None":
        found = vars(self.model).get(_ATTRIBUTE)
        return found if isinstance(found, _AtWork) else None

    def _init_callback(self) -> None:
        seed = getattr(self.model, "seed", None) or 0 if self.seed is None else self.seed
        asked = (self.methods, self.init, seed, self.time)
        present = self._at_work()
        if present is not None and present.attached:
            if present.asked != asked:
                raise StateError(_other_settings(self.model, present.asked, asked))
            self.attachments = present.attachments
            return
        if present is not None:
            present.detach()  # one of several was taken off by hand
        saved = {} if present else vars(self.model).get(_ATTRIBUTE, {})
        at_work = _AtWork(asked)
        try:
            _attach(self.model, at_work)
            _load(self.model, at_work.attachments, saved)
        except BaseException:
            at_work.detach()
            raise
        self.attachments = at_work.attachments
        setattr(self.model, _ATTRIBUTE, at_work)
        if self.verbose:
            print(self)

    def _on_training_start(self) -> None:
        if at_work := self._at_work():
            at_work.go_on()

    def _on_training_end(self) -> None:
        if at_work := self._at_work():
            at_work.rest()

    def _on_step(self) -> bool:
        # Off-policy algorithms write their log within the rollout, at the end of an episode.
        if not isinstance(self.model, OnPolicyAlgorithm) and np.any(self.locals.get("dones", False)):
            self._log()
        return True

    def _on_rollout_end(self) -> None:
        if isinstance(self.model, OnPolicyAlgorithm):
            self._log()

    def _log(self) -> None:
        for name, plastic in self.attachments.items():
            prefix = f"regrow/{name}/" if len(self.attachments) > 1 else "regrow/"
            for key, value in plastic.metrics().items():
                # The table on the screen cuts long names, and takes two that are cut alike for an error.
                exclude = ("stdout", "log") if "/" in key else None
                self.logger.record(prefix + key, value, exclude=exclude)


# Of the model, so that what stands there is saved, loaded and copied with it. An optimizer's state carries regrow's
# too, but `load` restores optimizers before a callback can attach, and they drop what they do not know.
_ATTRIBUTE = "regrow_state"


class _AtWork:
    """The attachments of a model. In a copy and in a file there is their state in its place, as tensors in dicts,
    which can be read where regrow is not installed.

    Args:
        asked: methods, law, seed and time.

    Attributes:
        attachments: by name.
        hooks: others, to be removed with them.
    """

    __slots__ = ("_resting", "asked", "attachments", "hooks")  # attributes in `__dict__` would be saved as text

    def __init__(self, asked: tuple[tuple[Method, ...], Init, int, Time]) -> None:
        self.asked = asked
        self.attachments: dict[str, Attachment] = {}
        self.hooks: list[RemovableHandle] = []
        self._resting = ExitStack()

    def __reduce__(self) -> tuple[Any, ...]:
        states = {
            name: {key: value.cpu() for key, value in plastic.state_dict().items()}
            for name, plastic in self.attachments.items()
        }
        return dict, (states,)

    @property
    def attached(self) -> bool:
        return all(plastic.attached for plastic in self.attachments.values())

    def rest(self) -> None:
        self._resting.close()
        for plastic in self.attachments.values():
            self._resting.enter_context(plastic.paused())

    def go_on(self) -> None:
        self._resting.close()

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()
        for plastic in self.attachments.values():
            plastic.detach()


@dataclass(frozen=True)
class _Part:
    """What one optimizer trains.

    Attributes:
        network: with all that reads what is trained.
        optimizer: the optimizer.
        example: the forward of its loss: what the network is called with, or a callable where it is called in parts.
        exclude: a module of the network that another optimizer trains.
        borrower: an optimizer whose loss runs this network too, between a step of its own and the next one here.
    """

    network: nn.Module
    optimizer: Optimizer
    example: Any
    exclude: tuple[str, ...] = ()
    borrower: Optimizer | None = None


def _parts(model: BaseAlgorithm) -> dict[str, _Part]:
    policy: Any = without_wrapper(model.policy)
    if not isinstance(policy, ActorCriticPolicy | SACPolicy | TD3Policy | DQNPolicy):
        raise ConfigError(
            f"RegrowCallback knows how PPO, A2C, SAC, TD3, DDPG and DQN train, but not {type(policy).__name__} of "
            f"{type(model).__name__}. Call regrow.attach(network, optimizer, methods, example=...) before learn(), "
            "with a callable as example= that computes what the loss reads."
        )
    seen, done = _observations(policy), _actions(policy)
    if isinstance(policy, ActorCriticPolicy):
        return {"policy": _Part(policy, policy.optimizer, lambda policy: policy.evaluate_actions(seen, done))}
    if isinstance(policy, DQNPolicy):
        return {"policy": _Part(policy.q_net, policy.optimizer, (seen,))}
    actor, critic = policy.actor, policy.critic
    of_actor = (lambda actor: actor.action_log_prob(seen)) if isinstance(policy, SACPolicy) else (seen,)
    if not policy.share_features_extractor:
        return {
            "actor": _Part(actor, actor.optimizer, of_actor),
            "critic": _Part(critic, critic.optimizer, (seen, done), borrower=actor.optimizer),
        }

    # The critic reads what the actor's optimizer trains, which is seen only if both are traced together. That of TD3's
    # critic holds it too, but never gets a gradient for it.
    def both(policy: Any) -> Any:
        return (of_actor(policy.actor) if callable(of_actor) else policy.actor(seen)), policy.critic(seen, done)

    shared = ("actor.features_extractor",)
    return {
        "actor": _Part(policy, actor.optimizer, both),
        "critic": _Part(policy, critic.optimizer, both, shared, borrower=actor.optimizer),
    }


def _attach(model: BaseAlgorithm, at_work: "_AtWork") -> None:
    """Fill it."""
    methods, init, seed, time = at_work.asked
    parts = _parts(model)
    able = _able(model, methods, init, parts)
    for number, (name, part) in enumerate(parts.items()):
        if not able[name] and methods:
            continue
        plastic = at_work.attachments[name] = attach(
            part.network,
            part.optimizer,
            able[name],
            example=part.example,
            exclude=part.exclude,
            init=init,
            seed=seed + number * 2**32 if number else seed,  # actor and critic draw independently
            time=time,
        )
        if part.borrower is not None:
            at_work.hooks.append(part.borrower.register_step_post_hook(partial(_forget, plastic)))


def _forget(plastic: Attachment, *step: Any) -> None:
    """What a network was run for since its own step was another's loss: not for its training, and it is not saved."""
    for worker in plastic.unit_workers:
        for site in worker.sites:
            site.clear()


def _able(
    model: BaseAlgorithm, methods: Sequence[Method], init: Init, parts: dict[str, _Part]
) -> dict[str, list[Method]]:
    """Which methods have something to act on, by part: a linear actor is no obstacle to those of the critic."""
    for method in methods:
        for name, part in parts.items():
            if isinstance(method, WeightMethod) and method.feature_examples and callable(part.example):
                raise ConfigError(
                    f"{type(method).__name__} runs a network on past inputs once more, but {type(model).__name__} "
                    f"calls its {name} in parts, so that the inputs of the whole are never seen. Take another method."
                )
    able = {name: list(methods) for name in parts}
    of_units = [method for method in methods if isinstance(method, UnitMethod)]
    graphs = {name: find_units(part.network, part.example) for name, part in parts.items()} if of_units else {}
    for method in of_units:
        reasons: dict[str, str] = {}
        for name, graph in graphs.items():
            part = parts[name]
            request = Request(None, part.exclude, init, strict=False, include_coupled=False, time="steps")
            why = {group.name: why_not_served(group, method, part.network, part.optimizer, request) for group in graph}
            if all(why.values()):
                able[name].remove(method)
            reasons |= {f"{name}, {group}": reason for group, reason in why.items() if reason is not None}
        if not any(method in left for left in able.values()):
            raise ModelError(
                f"{type(method).__name__} finds no unit to replace in the {type(model.policy).__name__} of this "
                f"{type(model).__name__}:\n{format_reasons(reasons) or '  it has no units'}\n"
                "Give it hidden layers, such as policy_kwargs={'net_arch': [64, 64]}, or take a method that edits "
                "weights, such as 'l2-init'."
            )
    return able


def _load(model: BaseAlgorithm, attachments: dict[str, Attachment], saved: dict[str, dict[str, Tensor]]) -> None:
    if not saved:
        return
    advice = f"To start regrow afresh on this {type(model).__name__}: del model.{_ATTRIBUTE}, and learn() then."
    if saved.keys() != attachments.keys():
        raise StateError(
            f"This {type(model).__name__} was saved with methods at work on {' and '.join(saved)}, but the present "
            f"ones act on {' and '.join(attachments)}. Give the callback the methods that were saved. {advice}"
        )
    for name, plastic in attachments.items():
        try:
            plastic.load_state_dict(saved[name])
        except StateError as error:
            raise StateError(f"{error}\n{advice}") from error


def _other_settings(model: BaseAlgorithm, present: tuple[Any, ...], asked: tuple[Any, ...]) -> str:
    def said(settings: tuple[Any, ...]) -> str:
        methods, init, seed, time = settings
        return f"{', '.join(map(str, methods))}, init={init!r}, seed={seed!r}, time={time!r}"

    return (
        f"Other methods are at work on this {type(model).__name__} already.\n  at work: {said(present)}\n"
        f"  asked:   {said(asked)}\nGive learn() the callback that it had before, or one that asks for the same, or "
        "call detach() of that one first. One callback takes several methods, as in RegrowCallback(['cbp', 'l2'])."
    )


_EXAMPLES = 4  # norms over a batch need two; more are only slower
_LARGEST = 10.0  # of spaces without bounds, whose draws may be as large as numbers get


def _drawn(space: Any) -> Any:
    """Examples from a space, stacked; from a copy, since drawing moves the generator of the space itself."""
    space = copy.deepcopy(space)
    space.seed(0)
    samples = [space.sample() for _ in range(_EXAMPLES)]
    if isinstance(samples[0], dict):
        return {key: _stacked([sample[key] for sample in samples]) for key in samples[0]}
    return _stacked(samples)


def _stacked(samples: list[Any]) -> Any:
    values = np.stack(samples)
    return values.clip(-_LARGEST, _LARGEST) if np.issubdtype(values.dtype, np.floating) else values


def _observations(policy: Any) -> Any:
    observations, _ = policy.obs_to_tensor(_drawn(policy.observation_space))
    return observations


def _actions(policy: Any) -> Tensor:
    """As training reads them from a buffer: indices as whole numbers, all else as float32."""
    actions = torch.as_tensor(_drawn(policy.action_space), device=policy.device)
    return actions if actions.dtype == torch.int64 else actions.float()
