"""Decides from measurements whether a trained model may replace the one in production."""

from moaa.gate.decision import Decision, decide
from moaa.gate.evidence import Evidence, Paired, evidence_of
from moaa.gate.rules import RuleResult

__all__ = ["Decision", "Evidence", "Paired", "RuleResult", "decide", "evidence_of"]
