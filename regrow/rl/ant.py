"""MuJoCo's Ant, in less time."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.envs.mujoco import ant_v5


class AntEnv(ant_v5.AntEnv):
    """Gymnasium's Ant-v5, number for number.

    Of a step of that, a fifth is spent on working out twice what follows from MuJoCo's state. Here it is worked out
    once; the physics, the settings and all else are Gymnasium's own.
    """

    def step(self, action: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        """Go on by one step; see Gymnasium's Ant-v5."""
        data = self.data
        torso = data.body(self._main_body).xpos  # a view of what MuJoCo moves
        before = torso[:2].copy()
        self.do_simulation(action, self.frame_skip)
        x_velocity, y_velocity = (torso[:2] - before) / self.dt

        state = np.concatenate((data.qpos, data.qvel))
        forces = data.cfrc_ext.clip(*self._contact_force_range)
        observation = state[self.observation_structure["skipped_qpos"] :]
        if self._include_cfrc_ext_in_observation:
            observation = np.concatenate((observation, forces[1:].reshape(-1)))
        lowest, highest = self._healthy_z_range
        is_healthy = np.isfinite(state).all() and lowest <= state[2] <= highest

        forward = x_velocity * self._forward_reward_weight
        survived = is_healthy * self._healthy_reward
        control_cost = self._ctrl_cost_weight * np.add.reduce(np.square(action))
        contact_cost = self._contact_cost_weight * np.add.reduce(np.square(forces), axis=None)
        position = state[:2]
        info = {
            "x_position": position[0],
            "y_position": position[1],
            "distance_from_origin": np.sqrt(position.dot(position)),
            "x_velocity": x_velocity,
            "y_velocity": y_velocity,
            "reward_forward": forward,
            "reward_ctrl": -control_cost,
            "reward_contact": -contact_cost,
            "reward_survive": survived,
        }
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        reward = forward + survived - (control_cost + contact_cost)
        return observation, reward, not is_healthy and self._terminate_when_unhealthy, False, info
