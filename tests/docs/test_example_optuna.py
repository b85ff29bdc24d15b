"""The search with Optuna, and what it finds again."""

from __future__ import annotations

import numpy as np

from helpers.example_scripts import load, run
from helpers.peers import require
from lstmcore.datasets import japanese_vowels

optuna = require("optuna")


def test_the_search_runs() -> None:
    lines = run("optuna_search", "--quick")
    assert lines[0].startswith("8 trials, of which ")
    assert lines[0] != "8 trials, of which 0 were stopped early"
    assert float(lines[2].split()[1]) > 85


def test_the_same_seed_finds_the_same() -> None:
    train, _ = japanese_vowels()
    rows = np.random.default_rng(0).permutation(270)[:60]
    data = train.x[:, rows], train.labels[rows], train.lengths[rows]
    example = load("optuna_search")
    studies = [example.study(data, 3, 2, seed, None) for seed in (1, 1, 2)]
    values = [[trial.value for trial in study.trials] for study in studies]
    assert values[0] == values[1] != values[2]
    assert studies[0].best_value == min(values[0])
