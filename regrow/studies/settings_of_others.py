"""Settings in which other papers compare methods, so that their numbers can be set beside ours."""

from typing import Any

from regrow.experiments.arm import Arm
from regrow.methods import L2, ContinualBackprop, L2Init, ReDo, SelectiveWeightReinit, ShrinkAndPerturb

KUMAR: dict[str, Any] = {
    "images": 10_000,
    "tasks": 500,
    "widths": [100, 100],
    "batch": 16,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "initial": "pytorch",
    "init": None,
    "black": -1.0,
}
"""Permuted MNIST of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958): what differs from the article's problem."""

HERNANDEZ: dict[str, Any] = {
    "images": 60_000,
    "tasks": 1000,
    "widths": [100, 100, 100],
    "batch": 30,
    "learning_rate": 0.05,
}
"""Permuted MNIST of Hernandez-Garcia et al., CoLLAs 2025: what differs from the article's problem."""


def kumar_arms() -> dict[str, Arm]:
    """Return what Kumar et al. sweep: steps of SGD and Adam, and with the Adam of step 1e-3 the strengths of methods;
    of shrink-and-perturb the settings with as much noise as decay.
    """
    found = {f"adam step={step:g}": Arm(changes={"learning_rate": step}) for step in (1e-3, 1e-4)}
    for step in (1e-2, 1e-3):
        found[f"sgd step={step:g}"] = Arm(changes={"optimizer": "sgd", "learning_rate": step})
    for strength in (1e-2, 1e-3, 1e-4, 1e-5):
        found[f"l2 strength={strength:g}"] = Arm((L2(strength, coupled=True),))
        found[f"l2-init strength={strength:g}"] = Arm((L2Init(strength),))
        found[f"shrink-and-perturb {strength:g}"] = Arm((ShrinkAndPerturb(strength, strength),))
    for rate in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        cbp = ContinualBackprop(
            rate, 100, budget="bernoulli", utility_rule="adaptable_contribution", weight_sums="each_step"
        )
        found[f"cbp rate={rate:g}"] = Arm((cbp,))
    for tasks in (1, 2, 5):
        for threshold in (0.0, 0.01, 0.1):
            redo = ReDo(period=625 * tasks, threshold=threshold)  # 625 steps are a task
            found[f"redo tasks={tasks} threshold={threshold:g}"] = Arm((redo,))
    return found


def hernandez_arms() -> dict[str, Arm]:
    """Return the settings of Hernandez-Garcia et al. for a network of 100 units a layer."""
    return {
        "backprop": Arm(),
        "l2": Arm((L2(1e-4),)),
        "shrink-and-perturb": Arm((ShrinkAndPerturb(1e-4, 1e-7**0.5),)),  # the variance of the noise is 1e-7
        "cbp": Arm((ContinualBackprop(1e-4, 500, weight_sums="each_step"),)),
        "redo": Arm((ReDo(period=16, threshold=1e-4),)),
        "swr": Arm((SelectiveWeightReinit(),)),
    }
