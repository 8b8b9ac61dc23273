"""Names of claims -> their records: every file directly in `analysis/claims/` is one, and holds it as `CLAIM`."""

from importlib import import_module
from pkgutil import iter_modules

from tidepool.analysis import claims
from tidepool.analysis.claims.frame.claim import Claim


def claim_names() -> tuple[str, ...]:
    """In the order of the chapter."""
    names = (module.name for module in iter_modules(claims.__path__) if not module.ispkg)
    return tuple(sorted(names, key=lambda name: load_claim(name).place))


def load_claim(name: str) -> Claim:
    """The claim in `analysis/claims/<name>.py`. Its file imports no torch."""
    claim: Claim = import_module(f"{claims.__name__}.{name}").CLAIM
    return claim
