"""Mixture of agents: proposers answer, an aggregator writes one better answer from theirs.

Paper, Eq. 1-3.
"""

from moaa.mixture.answers import Answer, Conversation, LeftOut, Proposal
from moaa.mixture.conversation import CUT, CUT_REMEDY, Respond, converse, turn_by_turn
from moaa.mixture.layers import Prepared, TooFewProposals, prepare, respond
from moaa.mixture.proposing import (
    LATE,
    Consult,
    Patience,
    by_model,
    propose,
    with_distinct_keys,
)
from moaa.mixture.references import FENCED, ReferencePlace, as_member, numbered, with_references

__all__ = [
    "CUT",
    "CUT_REMEDY",
    "FENCED",
    "LATE",
    "Answer",
    "Consult",
    "Conversation",
    "LeftOut",
    "Patience",
    "Prepared",
    "Proposal",
    "ReferencePlace",
    "Respond",
    "TooFewProposals",
    "as_member",
    "by_model",
    "converse",
    "numbered",
    "prepare",
    "propose",
    "respond",
    "turn_by_turn",
    "with_distinct_keys",
    "with_references",
]
