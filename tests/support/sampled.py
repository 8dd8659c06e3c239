"""What the stage label gets, without a run: prompts with five answers each."""

from __future__ import annotations

from moaa.artifacts import Artifact, Draft, Output
from moaa.store import Store

ANSWERS = 5


def question(number: int) -> str:
    return f"Tell me fact {number}."


def answer(number: int, way: int) -> str:
    return f"Fact {number} in way {way}."


def samples(store: Store, prompts: int) -> dict[str, Artifact]:
    """The inputs of the stage by name."""
    with Output(store, f"{store.root}/samples/x", "samples") as out:
        for number in range(prompts):
            given = [
                {"text": answer(number, way), "count": 1, "finish_reason": "stop"}
                for way in range(ANSWERS)
            ]
            out.write(
                {
                    "id": str(number),
                    "source": "s",
                    "messages": [{"role": "user", "content": question(number)}],
                    "samples": given,
                    "cut_turns": 0,
                }
            )
        draft = Draft(stage="sample", name="n", fingerprint="x")
        return {"samples": Artifact(store, out.commit(draft))}
