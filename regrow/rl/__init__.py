"""Reinforcement learning in environments that change: PPO, and what changes."""
