"""Texts that share much with another one are found, and no others."""

import random

import pytest

from moaa.prompts.overlap import NearDuplicates, SharedRuns, Vocabulary, normalized, shingles
from moaa.prompts.selection import build
from tests.support.prompt_texts import CONFIG, prompt, text


def brute_force(texts, threshold):
    """Which texts a greedy pass keeps, by comparing all shingle sets word by word."""

    def of(text):
        words = normalized(text).split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    kept: list[int] = []
    sets: list[set[tuple[str, ...]]] = []
    for index, each in enumerate(map(of, texts)):
        if not any(len(each & other) / len(each | other) >= threshold for other in sets):
            kept.append(index)
            sets.append(each)
    return kept


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.9])
def test_near_duplicates_are_those_of_brute_force(seed, threshold):
    draw = random.Random(seed)
    texts = [
        text(draw, draw.randint(1, 120), vocabulary=draw.choice([3, 30, 3000])) for _ in range(60)
    ]
    for _ in range(120):  # edited copies, and copies of copies
        words = draw.choice(texts).split()
        for _ in range(draw.randint(0, 4)):
            place = draw.randrange(len(words))
            words[place : place + draw.randint(0, 1)] = [f"new{draw.randrange(5)}"]
        texts.append(" ".join(words))
    draw.shuffle(texts)
    unique = list(dict.fromkeys(texts))
    selection = build(
        {"sft": [prompt(each) for each in unique]},
        CONFIG.model_copy(update={"near_duplicate": threshold}),
    )
    expected = brute_force(unique, threshold)
    assert [row.turns[0] for row in selection.kept["sft"]] == [unique[i] for i in expected]
    assert 60 * 0.2 < len(expected) < len(unique)


@pytest.mark.parametrize("seed", range(6))
def test_shared_runs_are_those_of_brute_force(seed):
    draw = random.Random(seed)
    texts = [text(draw, draw.randint(0, 30), vocabulary=3) for _ in range(200)]
    known, asked = texts[:10], texts[10:]

    def runs(words):
        return {tuple(words[i : i + 7]) for i in range(len(words) - 6)}

    vocabulary = Vocabulary()
    shared = SharedRuns(((str(i), vocabulary.words(each)) for i, each in enumerate(known)), 7)
    outcomes = set()
    for each in asked:
        found = shared.find(vocabulary.words(each))
        expected = any(runs(each.split()) & runs(other.split()) for other in known)
        assert (found is not None) == expected
        if found:
            owner, run = found
            assert tuple(vocabulary.text(run).split()) in runs(known[int(owner)].split()) & runs(
                each.split()
            )
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_a_threshold_is_reached_exactly():
    vocabulary = Vocabulary()
    a = shingles(
        vocabulary.words("1 2 3 4 5 6 7 8 9 10 11 12 13 14")
    )  # 10 shingles, 9 of them in b too, 11 in all
    b = shingles(vocabulary.words("1 2 3 4 5 6 7 8 9 10 11 12 13 other"))
    for threshold, expected in ((9 / 11, 0), (9 / 11 + 1e-6, None)):
        near = NearDuplicates([a, b], threshold)
        near.add(0)
        assert near.match(1) == expected


def test_of_several_similar_texts_the_first_is_named():
    near = NearDuplicates([shingles(Vocabulary().words("one two three four five six"))] * 4, 0.9)
    for index in (2, 0, 1):
        near.add(index)
    assert near.match(3) == 0


def test_words_are_told_apart_in_scripts_without_spaces():
    vocabulary = Vocabulary()
    assert len(vocabulary.words("今天天气很好，我们去公园吧")) == 12
    assert len(vocabulary.words("Straße, STRASSE; l'été x2")) == 5
    assert len(vocabulary.words("🎉🎉")) == 1
    a, b = vocabulary.words("?!"), vocabulary.words("🎉")
    assert a != b
