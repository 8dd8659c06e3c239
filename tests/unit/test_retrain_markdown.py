"""The page of a retraining: what its tables say."""

from __future__ import annotations

from moaa.plan import Line
from moaa.retrain import markdown
from moaa.retrain.account import Account
from moaa.retrain.budget import Plan


def test_the_dollars_of_the_plan_add_up_to_their_sum() -> None:
    """Of a model with a price and with GPUs of its own the GPUs are paid, in both places."""
    paid = Line("generate", "big", 10, cost_usd=9.0, gpu_hours=2.0, gpu_usd=4.0)
    asked = Line("label", "hosted", 10, cost_usd=1.5)
    plan = Plan((paid, asked), (), ())
    page = markdown.page(Account(name="m", recipe="r.yaml", started="", plan=plan))
    rows = [
        line for line in page.splitlines() if line.startswith(("| generate", "| label", "| all"))
    ]
    assert [row.split("|")[-2].strip() for row in rows] == ["4.00", "1.50", "5.50"]
