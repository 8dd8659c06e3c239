"""The sources of SFT data beside the mixture: who is asked, and what becomes data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.chat.message import Choice, Message, Reply
from moaa.errors import RecipeError, RowRejected
from moaa.judge import Judgement
from moaa.labellers import Labels
from moaa.mixture import turn_by_turn
from moaa.plan.calls import of_generate, of_sft
from moaa.prompts.prompt import read_prompt
from moaa.recipe import Mixture, Recipe, Source
from moaa.recipe.load import load_file
from moaa.stages.generate import generate, part_of
from moaa.writers import best
from tests.support.engine_answers import Body
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

PERSONAS = {"precise": "concise", "thorough": "thorough", "lively": "creative"}
PROMPTS = 12


def who(body: Body) -> str:
    """Which member a request is for, by its persona."""
    system = body["messages"][0]["content"]
    return next((name for word, name in PERSONAS.items() if word in system), "aggregator")


def prompts(store: MemoryStore, **fields: Any) -> dict[str, Artifact]:
    with Output(store, f"{store.root}/prompts/x", "prompts") as out:
        for number in range(PROMPTS):
            turns = [f"question {number}", "and then?"]
            row = {"id": f"p{number}", "source": "s", "system": None, "turns": turns, **fields}
            out.write(row, table="sft")
        return {"prompts": Artifact(store, out.commit(Draft(stage="p", name="n", fingerprint="x")))}


def recipe(*sets: str, url: str = "http://127.0.0.1:1/v1") -> Recipe:
    given = [f"models.smollm2.endpoint={{url: '{url}'}}", "runtime.max_rejected_share=0.1"]
    return load_file(DEMO, [*given, *sets]).recipe


def made(
    *sets: str, say: Any = None, **fields: Any
) -> tuple[list[dict[str, Any]], EngineServer, Artifact]:
    store = MemoryStore()
    with EngineServer("smollm2") as server:
        server.answers_probes = True
        server.say = say or (lambda body: f"{who(body)} {len(body['messages'])}")
        chosen = recipe(*sets, url=server.url)
        manifest, _ = generate.run(chosen, store, prompts(store, **fields))
    artifact = Artifact(store, manifest)
    return list(artifact.rows()), server, artifact


def answers(row: dict[str, Any]) -> list[str]:
    return [each["content"] for each in row["messages"] if each["role"] == "assistant"]


def asked(server: EngineServer) -> Counter[str]:
    return Counter(who(body) for body in server.requests)


def test_a_teacher_answers_alone_with_its_own_answers_as_history() -> None:
    rows, server, _ = made("generate.source=teacher", "generate.teacher=thorough")
    assert asked(server) == {"thorough": 2 * PROMPTS}
    assert answers(rows[0]) == ["thorough 2", "thorough 4"]
    assert [each["name"] for each in rows[0]["turns"][1]["proposals"]] == ["thorough"]


def test_the_teacher_is_the_aggregators_model_unless_named() -> None:
    (teacher,) = recipe("generate.source=teacher").generate.writers
    assert (teacher.model, teacher.label) == ("smollm2", "smollm2")
    assert teacher.system == "Answer in one short sentence."
    for source in ("teacher", "mixture"):
        with pytest.raises(RecipeError, match=r"'gemma' is not one of `models`.*nor a proposer"):
            recipe(f"generate.source={source}", "generate.teacher=gemma")


def test_one_proposer_is_drawn_for_a_whole_conversation_and_always_the_same() -> None:
    rows, server, _ = made("generate.source=random")
    assert sum(asked(server).values()) == 2 * PROMPTS
    drawn = {row["id"]: {text.split()[0] for text in answers(row)} for row in rows}
    assert all(len(names) == 1 for names in drawn.values())
    assert len(set().union(*drawn.values())) == 3
    again, _, _ = made("generate.source=random")
    assert {row["id"]: answers(row) for row in again} == {row["id"]: answers(row) for row in rows}


def test_all_proposers_give_a_conversation_each() -> None:
    rows, server, _ = made("generate.source=all")
    assert asked(server) == dict.fromkeys(("concise", "thorough", "creative"), 2 * PROMPTS)
    assert len({row["id"] for row in rows}) == len(rows) == 3 * PROMPTS
    first = {row["id"]: answers(row) for row in rows if row["id"].startswith("p0.")}
    assert first == {
        "p0.1": ["concise 2", "concise 4"],
        "p0.2": ["thorough 2", "thorough 4"],
        "p0.3": ["creative 2", "creative 4"],
    }


def test_equal_proposers_give_a_conversation_each_from_calls_of_their_own() -> None:
    """Self-MoA: one model under several names. A shared answer would be the same data twice."""
    number = count()
    equal = "generate.mixture.proposers=[{model: smollm2, name: one}, {model: smollm2, name: two}]"
    rows, server, _ = made("generate.source=all", equal, say=lambda body: f"{next(number)}")
    assert len(server.requests) == 2 * 2 * PROMPTS
    assert len({answers(row)[0] for row in rows}) == len(rows) == 2 * PROMPTS


def test_a_proposer_without_an_answer_costs_its_own_conversation_only() -> None:
    def say(body: Body) -> str:
        silent = who(body) == "creative" and "question 3" in body["messages"][1]["content"]
        return "" if silent else who(body)

    rows, _, artifact = made("generate.source=all", "runtime.max_rejected_share=0.1", say=say)
    assert len(rows) == 3 * PROMPTS - 1
    events = artifact.manifest.ledger["events"]
    assert events["conversations missing: creative: empty"] == 1


def test_the_best_answer_is_the_labellers() -> None:
    def say(body: Body) -> str:
        return "the longest answer of all" if who(body) == "thorough" else who(body)

    rows, server, artifact = made("generate.source=best", "generate.labeller=random", say=say)
    assert asked(server)["aggregator"] == 2 * PROMPTS
    chosen = Counter(text for row in rows for text in answers(row))
    assert set(chosen) == {"concise", "creative", "the longest answer of all", "aggregator"}
    for row in rows:
        for turn in row["turns"]:
            assert turn["answer"] in [each["text"] for each in turn["proposals"]]
            assert turn["proposals"][-1]["layer"] == 1
    events = artifact.manifest.ledger["events"]
    assert events["best answer: thorough"] == chosen["the longest answer of all"]


@pytest.mark.parametrize("second_order", [0.8, None])
async def test_the_best_answer_does_not_depend_on_a_missing_verdict(
    second_order: float | None,
) -> None:
    """As for the pairs of `label`."""

    async def lossy(*given: Any, **more: Any) -> Labels:
        return Labels.of_judgements(2, [Judgement(0, 1, 0.9, second_order, ())])

    async def ask(model: str, *given: Any, **more: Any) -> Reply:
        return Reply((Choice(f"by {model}"),))

    mixture = Mixture.model_validate({"proposers": [{"model": "p"}], "aggregator": {"model": "a"}})
    answer = best(mixture, lossy, "1", ask)
    if second_order:
        assert (await turn_by_turn(answer, None, ["q"])).turns[0].text == "by a"
    else:
        with pytest.raises(RowRejected, match="depends on a missing verdict"):
            await turn_by_turn(answer, None, ["q"])


async def test_a_cut_answer_is_not_the_best_if_another_is_whole() -> None:
    class Longest:
        async def __call__(
            self, prompt: str, query: Sequence[Message], answers: Sequence[str], ask: Any
        ) -> Labels:
            return Labels.of_scores([float(len(answer)) for answer in answers])

    async def ask(model: str, *given: Any, **more: Any) -> Reply:
        cut = model == "long"
        return Reply((Choice(f"{model} " * (9 if cut else 1), "length" if cut else "stop"),))

    members = [{"model": name} for name in ("short", "long", "middling")]
    mixture = Mixture.model_validate({"proposers": members, "aggregator": {"model": "a"}})
    for keep, expected in (("reject", "middling"), ("keep", "long " * 9)):
        answer = best(mixture, Longest(), "p", ask, cut_answers=keep)  # type: ignore[arg-type]
        found = await turn_by_turn(answer, None, ["q"], cut_answers="keep")
        assert found.turns[0].text == expected.strip()


def test_the_data_sets_own_answers_need_no_model() -> None:
    rows, server, _ = made("generate.source=original", answers=["first", "second"])
    assert server.requests == []
    assert answers(rows[5]) == ["first", "second"]
    assert rows[5]["turns"][0]["proposals"] == []


def test_a_conversation_without_its_own_answers_is_rejected() -> None:
    from moaa.errors import TooManyRejected

    with pytest.raises(TooManyRejected, match="no answer in the data set"):
        made("generate.source=original", answers=["first", ""])


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"instruction": "Why?", "output": "So."}, ("So.",)),
        ({"prompt": "Why?"}, ("",)),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "c"},
                    {"role": "assistant", "content": "d"},
                ]
            },
            ("b", "d"),
        ),
        ({"data": ["a", "b", "c", "d"]}, ("b", "d")),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "b"),
        ({"question": "c", "history": [["a", "b"]], "answer": "d"}, ("b", "d")),
    ],
)
def test_own_answers_are_read_from_every_shape(row: Any, found: Sequence[str]) -> None:
    given = read_prompt(row, Source(source="x.jsonl"), answers=True)
    assert given.answers == tuple(found)
    assert given.to_json()["answers"] == list(found)
    assert "answers" not in read_prompt(row, Source(source="x.jsonl")).to_json()


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("mixture", {"proposer": 48, "aggregator": 16}),
        ("teacher", {"writer": 16}),
        ("random", {"writer": 16}),
        ("all", {"writer": 48}),
        ("best", {"proposer": 48, "aggregator": 16}),
        ("original", {}),
    ],
)
def test_the_plan_counts_each_sources_calls(source: str, calls: dict[str, float]) -> None:
    chosen = recipe(f"generate.source={source}", "generate.labeller=random")
    found: Counter[str] = Counter()
    for each in of_generate(chosen):
        found[each.role] += each.calls  # type: ignore[assignment]
    assert found == pytest.approx(calls)
    assert of_sft(chosen).epoch_tokens == of_sft(recipe()).epoch_tokens * (
        3 if source == "all" else 1
    )


def test_the_best_of_the_mixture_is_planned_with_its_labeller() -> None:
    asked = sum(each.calls for each in of_generate(recipe("generate.source=best")))
    assert asked == 64 + 16 * (4 * 3 / 2) * 9


def test_the_mixtures_fingerprint_does_not_know_other_sources() -> None:
    plain = part_of(recipe()).model_dump(mode="json")
    assert not {"source", "writers", "labelling"} & set(plain)
    assert part_of(recipe("generate.teacher=thorough")).model_dump(mode="json") == plain
