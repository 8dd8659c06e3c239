"""Who says which answers to a prompt are better: one small file each.

mixture     the mixture of judges compares all pairs of answers (paper, stage 2)

    labeller = JudgeMixture(judge)
    labels = await labeller("prompt-1", messages, answers, ask)
    preference.pair(labels.ranking)
"""

from moaa.labellers.labels import Labeller, Labels
from moaa.labellers.mixture import JudgeMixture

__all__ = ["JudgeMixture", "Labeller", "Labels"]
