"""Reinforcement learning in environments that change: PPO, and what changes."""

import importlib.util

from regrow.errors import DependencyError

if importlib.util.find_spec("gymnasium") is None:
    raise DependencyError("regrow.rl needs Gymnasium, which is not installed: pip install 'regrow[rl]'.")
