"""What a gateway keeps of chats: only of who agreed, masked, in files of a day, for some time."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import zstandard

from moaa.artifacts import formats
from moaa.artifacts.columns import FEEDBACK
from moaa.gateway.feedback.records import Records
from moaa.gateway.feedback.settings import FeedbackSettings
from tests.support.memory_store import MemoryStore
from tests.support.mixing import Says, Script
from tests.support.mixing_server import mixing

ROOT = "s3://moaa/use"
MODELS = {name: Says(("it is", " a@b.example")) for name in ("m1", "m2", "m3", "agg")}
AT = 1_795_000_000.0  # 2026-11-18
MESSAGES = [{"role": "user", "content": "Who am I? I am c@d.example."}]
CHOICES = [{"message": {"content": "It is a@b.example."}, "finish_reason": "stop"}]


def rows(store: MemoryStore) -> list[dict[str, Any]]:
    found = []
    for name in sorted(store.objects):
        assert name.endswith(".jsonl.zst")
        text = zstandard.ZstdDecompressor().decompress(store.objects[name]).decode()
        found += [json.loads(line) for line in text.splitlines()]
    return found


class Kept:
    """Records over a store in memory, with a clock that is set."""

    def __init__(self, **settings: Any) -> None:
        self.at = AT
        self.store = MemoryStore(ROOT)
        self.counted: list[str] = []
        given = FeedbackSettings.model_validate({"store": {"root": ROOT}, **settings})
        self.records = Records(given, self.store, self.counted.append, lambda: self.at)

    def ask(self, id: str = "r1", **more: Any) -> None:
        given = {"messages": MESSAGES, "choices": CHOICES, **more}
        self.records.answered("team", id, "mix", "rev", **given)


async def test_a_row_waits_for_its_rating_and_is_written_masked():
    kept = Kept(wait_s=300)
    kept.ask()
    kept.at += 120
    assert kept.records.rated("team", "r1", 1, "Ask me at c@d.example")
    await kept.records.look()
    assert kept.store.objects == {}
    kept.at += 200
    await kept.records.look()
    (name,) = kept.store.objects
    assert name.startswith(f"{ROOT}/2026-11-18/")
    assert rows(kept.store) == [
        {
            "id": "r1",
            "time": "2026-11-18T11:06:40.000+00:00",
            "key": "team",
            "model": "mix",
            "revision": "rev",
            "messages": [{"role": "user", "content": "Who am I? I am [e-mail]."}],
            "answer": "It is [e-mail].",
            "finish_reason": "stop",
            "rating": 1,
            "comment": "Ask me at [e-mail]",
            "masked": {"e-mail": 3},
        }
    ]
    assert kept.counted == ["written"]


async def test_its_rows_are_as_the_page_about_formats_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(wait_s=300)
    kept.ask()
    kept.ask("r2")
    kept.records.rated("team", "r2", 1, None)
    kept.at += 400
    await kept.records.look()
    assert {*rows(kept.store)[0]} == {field.name for field in FEEDBACK}
    (example,) = [each for each in formats.examples() if ".jsonl.zst" in each]
    file = tmp_path / re.findall(r'"(.*)"', example)[0]
    file.parent.mkdir()
    file.write_bytes(*kept.store.objects.values())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(f"import pandas\n{example}", names)
    assert list(names["rated"].id) == ["r2"]


async def test_a_late_rating_is_a_row_of_its_own():
    kept = Kept()
    kept.records.rated("team", "r9", -1, None)
    await kept.records.close()
    (row,) = rows(kept.store)
    assert {name: row[name] for name in ("id", "key", "rating", "comment")} == {
        "id": "r9",
        "key": "team",
        "rating": -1,
        "comment": None,
    }
    assert "messages" not in row


async def test_one_key_does_not_rate_the_answers_of_another():
    kept = Kept()
    kept.ask()
    kept.records.rated("other", "r1", -1, None)
    await kept.records.close()
    found = {row["key"]: row["rating"] for row in rows(kept.store)}
    assert found == {"other": -1, "team": None}


async def test_a_share_of_requests_is_kept_the_same_one_everywhere():
    kept, other = Kept(share=0.3), Kept(share=0.3)
    taken = [id for id in map(str, range(2_000)) if kept.records.takes(id)]
    assert 0.25 < len(taken) / 2_000 < 0.35
    assert all(other.records.takes(id) for id in taken)
    left = next(id for id in map(str, range(2_000)) if id not in taken)
    assert not kept.records.rated("team", left, 1, None)
    await kept.records.close()
    assert kept.store.objects == {}


@pytest.mark.parametrize(
    ("messages", "choices"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], CHOICES),
        ([{"role": "tool", "content": "x"}], CHOICES),
        ("q", CHOICES),
        (MESSAGES, []),
        (MESSAGES, [{"message": {"content": None}}]),
    ],
)
async def test_what_is_no_text_is_not_kept_but_counted(messages, choices):
    kept = Kept()
    kept.ask(messages=messages, choices=choices)
    await kept.records.close()
    assert (kept.counted, kept.store.objects) == (["skipped"], {})


async def test_rows_wait_while_the_store_is_away():
    kept = Kept(wait_s=1)
    kept.store.fail_puts = 1
    kept.ask()
    kept.at += 100
    await kept.records.look()
    assert (kept.counted, kept.store.objects) == ([], {})
    kept.at += 100
    await kept.records.look()
    assert [row["id"] for row in rows(kept.store)] == ["r1"]


async def test_memory_is_bounded_and_what_is_lost_is_counted(monkeypatch):
    monkeypatch.setattr("moaa.gateway.feedback.records.MOST_BYTES", 5_000)
    kept = Kept()
    for at in range(10):
        kept.ask(str(at))
    assert "dropped" in kept.counted
    await kept.records.close()
    ids = [row["id"] for row in rows(kept.store)]
    assert ids[-1] == "9"
    assert len(ids) + kept.counted.count("dropped") == 10


async def test_old_days_are_deleted_and_nothing_else():
    kept = Kept(retention_days=10)
    days = ("2026-11-07", "2026-11-08", "2026-11-18", "2026-01-xx", "2025-11-17")
    for day in days:
        kept.store.put(f"{ROOT}/{day}/a.jsonl.zst", b"x")
    kept.store.put("s3://moaa/useful/2020-01-01/a", b"x")
    await kept.records.look()
    assert sorted(kept.store.objects) == [
        f"{ROOT}/2026-01-xx/a.jsonl.zst",
        f"{ROOT}/2026-11-08/a.jsonl.zst",
        f"{ROOT}/2026-11-18/a.jsonl.zst",
        "s3://moaa/useful/2020-01-01/a",
    ]


KEYS = [
    {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "feedback": agreed}
    for name, agreed in (("yes", True), ("no", False))
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["mix", "m1"])
async def test_plain_models_and_mixtures_are_kept_for_keys_that_agreed(model, stream, monkeypatch):
    memory = MemoryStore(ROOT)
    monkeypatch.setattr("moaa.store.Store.of", lambda config, **more: memory)
    ask = {"model": model, "messages": MESSAGES, "stream": stream}
    config = {"keys": KEYS, "anonymous": False, "feedback": {"store": {"root": ROOT}}}
    async with mixing(Script(**MODELS), **config) as running, aiohttp.ClientSession() as session:

        async def post(path: str, body: Any, key: str = "yes") -> tuple[Any, bytes]:
            headers = {"Authorization": f"Bearer {key}"}
            async with session.post(running.url + path, json=body, headers=headers) as answer:
                return answer, await answer.read()

        kept, _ = await post("/chat/completions", ask)
        assert kept.headers["x-moaa-feedback"] == "kept"
        refused, _ = await post("/chat/completions", ask, "no")
        private, _ = await post("/chat/completions", ask | {"store": False})
        assert "x-moaa-feedback" not in {**refused.headers, **private.headers}
        rating = {"request_id": kept.headers["x-request-id"], "rating": 1}
        answer, body = await post("/feedback", rating)
        assert (answer.status, json.loads(body)["kept"]) == (200, True)
        for wrong, key, status in (
            (rating, "no", 403),
            (rating, "nobody", 401),
            (rating | {"rating": 5}, "yes", 400),
            ([], "yes", 400),
        ):
            answer, body = await post("/feedback", wrong, key)
            assert (answer.status, "error" in json.loads(body)) == (status, True)
    (row,) = rows(memory)
    assert (row["model"], row["rating"], row["key"]) == (model, 1, "yes")
    assert row["answer"] == "it is [e-mail]"
    assert row["revision"] or model == "m1"


async def test_without_a_place_to_keep_it_there_is_no_feedback():
    async with mixing(Script(**MODELS)) as running, aiohttp.ClientSession() as session:
        answer = await session.post(f"{running.url}/feedback", json={})
        assert answer.status == 404
