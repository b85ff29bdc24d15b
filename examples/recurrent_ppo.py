"""Recurrent PPO of sb3-contrib with the LSTM of lstmcore, on a task of memory.

    pip install "lstmcore[rl]"
    python examples/recurrent_ppo.py

A cue, left or right, is shown at the first step of an episode and never again. At some of the steps
that follow the agent is asked for it, in noise: a right answer gives the reward 1, a wrong one -1.
An agent without memory is right half of the time.

Sequences with episodes in them go through the layers of torch.nn one step at a time in
sb3-contrib, because a state has to be reset where an episode begins. The LSTM of lstmcore takes
`resets` instead, so that a sequence is one call: `Policy` below is all that changes. ``--speed``
times learning updates both ways, of the same rollout.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.env_util import make_vec_env

import lstmcore.torch


class Policy(RecurrentActorCriticPolicy):
    """Their policy, with our LSTM in its place."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for lstm in (self.lstm_actor, self.lstm_critic):
            if lstm is not None:
                lstm.__class__ = lstmcore.torch.LSTM

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):  # type: ignore[no-untyped-def]
        rows = lstm_states[0].shape[1]
        x = features.reshape(rows, -1, lstm.input_size).swapaxes(0, 1)
        resets = episode_starts.reshape(rows, -1).swapaxes(0, 1) > 0.5
        y, lstm_states = lstm(x, lstm_states, resets=resets)
        return y.transpose(0, 1).flatten(0, 1), lstm_states


class Recall(gym.Env):  # type: ignore[type-arg]
    """See above. Observations are the cue, -1, 0 or 1; whether it asks; and noise."""

    def __init__(self, length: int = 32, asked: float = 0.3) -> None:
        self.observation_space = gym.spaces.Box(-5, 5, (3,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.length, self.asked = length, asked

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.cue, self.steps = int(self.np_random.integers(2)), 0
        # At which steps it asks, at one of them at least.
        self.asks = self.np_random.random(self.length) < self.asked
        self.asks[0], self.asks[-1] = False, True
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Reward an answer that was asked for."""
        reward = (1.0 if int(action) == self.cue else -1.0) if self.asks[self.steps] else 0.0
        self.steps += 1
        ended = self.steps == self.length
        return self._observation(), reward, ended, False, {}

    def _observation(self) -> Any:
        cue = 2 * self.cue - 1 if self.steps == 0 else 0
        asks = self.steps < self.length and self.asks[self.steps]
        noise = self.np_random.normal(0, 0.5)
        return np.array([cue, asks, np.clip(noise, -5, 5)], np.float32)


def agent(policy: Any, seed: int, length: int, hidden: int = 32) -> RecurrentPPO:
    """Make an agent with eight environments."""
    environments = make_vec_env(Recall, 8, seed=seed, env_kwargs={"length": length})
    return RecurrentPPO(
        policy,
        environments,
        learning_rate=1e-3,
        n_steps=128,
        batch_size=256,
        n_epochs=8,
        gamma=0.9,
        policy_kwargs={"lstm_hidden_size": hidden, "net_arch": []},
        seed=seed,
        device="cpu",
    )


def right(model: RecurrentPPO, length: int, episodes: int = 200, seed: int = 1000) -> float:
    """Return the share of right answers in new episodes, all at once."""
    environments = make_vec_env(Recall, episodes, seed=seed, env_kwargs={"length": length})
    x, state, answers = environments.reset(), None, 0
    total = 0.0
    starts = np.ones(episodes, bool)
    for _ in range(length):
        actions, state = model.predict(x, state, starts, deterministic=True)
        x, rewards, starts, _ = environments.step(actions)
        total += float((rewards > 0).sum())
        answers += int((rewards != 0).sum())
    return total / answers


def difference(rows: int = 7, steps: int = 50, units: int = 16) -> float:
    """Return by how much outputs, states and gradients differ in float64 from their own loop."""
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, units, dtype=torch.float64)
    ours = lstmcore.torch.LSTM(3, units, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(rows * steps, 3, dtype=torch.float64)
    state = torch.randn(2, 1, rows, units, dtype=torch.float64)
    starts = (torch.rand(rows * steps) < 0.1).double()
    found = []
    for lstm, policy in ((theirs, RecurrentActorCriticPolicy), (ours, Policy)):
        y, (h, c) = policy._process_sequence(x, (state[0], state[1]), starts, lstm)
        (y.sin().sum() + (h * c).sum()).backward()
        found.append([y, h, c, *(p.grad for p in lstm.parameters())])
    return max(float((a - b).detach().abs().max()) for a, b in zip(*found, strict=True))


def speed(length: int, rounds: int, hidden: int) -> tuple[float, float]:
    """Return the seconds of a learning update of one rollout, theirs and ours: medians."""
    agents = [agent(policy, 0, length, hidden) for policy in ("MlpLstmPolicy", Policy)]
    for one in agents:
        one.learn(1024)  # one rollout, to learn from
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):  # in turns
        for one, times in zip(agents, seconds, strict=True):
            start = time.perf_counter()
            one.train()
            times.append(time.perf_counter() - start)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def main() -> None:
    """Train agents both ways, and print how they answer; or time learning updates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="how many agents of each kind")
    parser.add_argument("--steps", type=int, default=20_480, help="steps of an agent")
    parser.add_argument("--length", type=int, default=32, help="steps of an episode")
    parser.add_argument("--speed", type=int, metavar="ROUNDS", help="time updates, so many times")
    parser.add_argument("--hidden", type=int, default=32, help="units")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lstmcore.set_num_threads(1)
    print(f"largest difference in float64: {difference():.1e}")
    if arguments.speed:
        theirs, ours = speed(arguments.length, arguments.speed, arguments.hidden)
        print(f"an update: theirs {theirs:.2f} s, ours {ours:.2f} s, {theirs / ours:.1f} times")
        return
    for name, policy in (("sb3-contrib", "MlpLstmPolicy"), ("lstmcore", Policy)):
        start, found = time.perf_counter(), []
        for seed in range(arguments.seeds):
            model = agent(policy, seed, arguments.length, arguments.hidden)
            model.learn(arguments.steps)
            found.append(right(model, arguments.length))
        seconds = (time.perf_counter() - start) / arguments.seeds
        spread = " ".join(f"{value:.3f}" for value in found)
        print(f"{name}: {spread} of the answers right, {seconds:.0f} s each")


if __name__ == "__main__":
    main()
