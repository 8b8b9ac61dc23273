"""How a claim is written down, measured, recorded, concluded from and shown. No torch."""

from tidepool.analysis.claims.frame.claim import Claim, Measurement, MissingDataError, Verdict
from tidepool.analysis.claims.frame.registry import claim_names, load_claim
from tidepool.analysis.claims.frame.showing import Shown, chapter

__all__ = [
    "Claim",
    "Measurement",
    "MissingDataError",
    "Shown",
    "Verdict",
    "chapter",
    "claim_names",
    "load_claim",
]
