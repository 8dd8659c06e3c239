"""A mixture of two proposers, with changes."""

from moaa.chat.message import Message
from moaa.recipe import Member, Mixture

Q: list[Message] = [{"role": "user", "content": "q"}]


def mixture(*members, layers=2, references="plain", **more):
    members = members or tuple(Member(model=f"m{i}") for i in (1, 2, 3))
    return Mixture(
        proposers=members,
        aggregator=Member(model="agg"),
        layers=layers,
        references=references,
        **more,
    )


def named(call):
    return f"from {call.model}"
