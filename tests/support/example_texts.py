"""Texts of the example runs: five topics whose answers are drawn sentence by sentence."""

from __future__ import annotations

import random
from dataclasses import dataclass

PERSONAS = ("concise", "thorough", "creative")
REVIEWERS = ("strict", "fair", "reader")
CRITERIA = (
    "Instruction adherence",
    "Relevance",
    "Accuracy",
    "Depth",
    "Clarity",
    "Helpfulness",
    "Safety",
    "Robustness",
)


@dataclass(frozen=True)
class Topic:
    turns: list[str]
    sentences: tuple[str, ...]

    def answer(self, chance: random.Random, sentences: int) -> str:
        return " ".join(chance.sample(self.sentences, min(sentences, len(self.sentences))))


TOPICS = (
    Topic(
        [
            "Why does bread rise, and what goes wrong when it does not?",
            "Now explain it to a child of six, in three sentences.",
        ],
        (
            "Yeast eats the sugars in the flour and breathes out carbon dioxide.",
            "Kneading builds gluten, an elastic net that holds the bubbles.",
            "A flat loaf usually means old yeast, water that was too hot, or too little time.",
            "Warmth speeds the yeast up: at 27 °C a dough doubles in about an hour.",
            "Salt slows fermentation, so it is added after the yeast has woken up.",
            "1. Test the yeast in warm water.\n2. Knead until the dough is smooth.\n3. Let it "
            "double before shaping.",
        ),
    ),
    Topic(
        [
            "Plan a weekend in Lisbon for two people who like walking and dislike queues.",
            "It will rain on Sunday. Change only that day.",
        ],
        (
            "Saturday begins in Alfama, before nine, when the lanes belong to the cats.",
            "Skip the tower at Belém and walk the river front to the MAAT instead.",
            "For dinner, a tasca in Graça takes no reservations and has no queue before half past "
            "seven.",
            "The miradouro da Senhora do Monte is higher and emptier than its neighbours.",
            "Tram 28 is a queue on rails: walk its route, it is 40 minutes from end to end.",
            "On a wet Sunday the Gulbenkian is large enough for everybody.",
        ),
    ),
    Topic(
        [
            "Write a function that returns the median of a list.",
            "What does it do with an empty list, and what should it do?",
        ],
        (
            "def median(values: list[float]) -> float:\n    ordered = sorted(values)\n    middle "
            "= len(ordered) // 2\n"
            "    if len(ordered) % 2:\n        return ordered[middle]\n    return (ordered[middle "
            "- 1] + ordered[middle]) / 2\n",
            "Sorting dominates: O(n log n); quickselect would be O(n) on average.",
            "An empty list raises an IndexError here, which names the wrong problem.",
            "Raising ValueError('median of an empty list') tells the caller what happened.",
            "The standard library's statistics.median does the same and is tested.",
            "For integers the result may be a float; that is what a caller expects of a mean of "
            "two values.",
        ),
    ),
    Topic(
        [
            "Is it cheaper to rent or to buy a home? Assume I stay eight years.",
            "Which of your assumptions matters most?",
        ],
        (
            "Compare the yearly cost of owning (interest, tax, upkeep, lost return on the "
            "deposit) with the rent.",
            "Upkeep is about 1 % of the price a year and is the item most often forgotten.",
            "Over eight years the cost of buying and selling, some 10 %, is spread thin but not "
            "away.",
            "If the price is more than twenty yearly rents, renting tends to win.",
            "The assumed growth of house prices decides more than all the others together.",
            "I cannot know your local tax rules; a table with your own numbers takes ten minutes.",
        ),
    ),
    Topic(
        [
            "Summarize how vaccines train the immune system.",
            "Give an analogy, and say where it breaks down.",
        ],
        (
            "A vaccine shows the immune system a harmless part of a pathogen.",
            "B cells that fit it multiply and mature; some become memory cells that last for "
            "years.",
            "T cells learn to recognize infected cells and help the B cells along.",
            "At a real infection the answer comes in days instead of weeks.",
            "It is like a fire drill: the building learns the exits. But cells that learn are "
            "selected, not taught.",
            "Boosters matter because memory fades and pathogens change.",
        ),
    ),
)
