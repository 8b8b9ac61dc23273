"""How a claim is written down, measured, recorded, concluded from and shown. No torch."""

from tidepool.analysis.claims.frame.claim import Claim, Measurement, MissingDataError, Verdict
from tidepool.analysis.claims.frame.registry import claim_names, load_claim
from tidepool.analysis.claims.frame.section import claims_screen, claims_section, claims_under
from tidepool.analysis.claims.frame.showing import CLAIMS_TITLE, Shown, chapter

__all__ = [
    "CLAIMS_TITLE",
    "Claim",
    "Measurement",
    "MissingDataError",
    "Shown",
    "Verdict",
    "chapter",
    "claim_names",
    "claims_screen",
    "claims_section",
    "claims_under",
    "load_claim",
]
