"""Whether a trained model may take the place of the one in production, from measured evidence."""

from moaa.gate.decision import Decision, decide
from moaa.gate.evidence import Evidence, Paired, evidence_of
from moaa.gate.rules import Found

__all__ = ["Decision", "Evidence", "Found", "Paired", "decide", "evidence_of"]
