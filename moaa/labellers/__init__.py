"""Labellers decide which answers to a prompt are better: one small file for each.

mixture     judges compare all pairs of answers (paper, stage 2); also a single judge
reward      a reward model scores each answer
armorm      ArmoRM scores each answer: the vectors of a stock engine, and its published heads
chance      a random order

    labeller = RewardModel("skywork")
    labels = await labeller("prompt-1", messages, answers, ask)
    preference.pair(labels.ranking)
"""

from moaa.labellers.armorm import ArmoRM, Heads
from moaa.labellers.chance import Chance
from moaa.labellers.labels import Labeller, Labels
from moaa.labellers.mixture import JudgeMixture
from moaa.labellers.reward import RewardModel

__all__ = ["ArmoRM", "Chance", "Heads", "JudgeMixture", "Labeller", "Labels", "RewardModel"]
