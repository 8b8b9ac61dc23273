"""What a launch did: warp instructions, memory sectors, shared-memory wavefronts, matrix products, copied bytes.

A global access moves sectors of 32 bytes; a shared one takes a wavefront for every 128 bytes at best, more where lanes
want different words of one of the 32 banks (CUDA C++ Best Practices Guide, "Shared Memory and Memory Banks").
"""

from collections import Counter, defaultdict

import numpy as np

from tidepool.simulator.numbers import Array
from tidepool.simulator.registers import LANES

SECTOR = 32
BANKS = 32


class Counters:
    """Counts of a launch, all in all and by source line."""

    def __init__(self, detailed: bool) -> None:
        self.detailed = detailed
        self.total: Counter[str] = Counter()
        self.lines: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, line: str, what: str, count: int) -> None:
        """Count something that a source line did."""
        self.total[what] += count
        if self.detailed:
            self.lines[line][what] += count

    def global_access(self, line: str, verb: str, addresses: Array, size: int, warps: Array) -> None:
        """A warp's lanes ask for `size` bytes each: requests, bytes wanted, sectors moved."""
        if not self.detailed:
            return
        warp = warps.astype(np.int64) << 46
        sectors = warp + (addresses & ((1 << 46) - 1)) // SECTOR  # aligned to their size: in one each
        self.add(line, f"global {verb} requests", _distinct(warp))
        self.add(line, f"global {verb} bytes", size * len(addresses))
        self.add(line, f"global {verb} sectors", _distinct(sectors))

    def shared_access(self, line: str, verb: str, addresses: Array, size: int, lanes: Array) -> None:
        """Wavefronts of an access to shared memory, and the least there can be. Lanes of 8 and 16 bytes go by halves
        and quarters of a warp."""
        if not self.detailed or not len(addresses):
            return
        together = {8: 16, 16: 8}.get(size, LANES)
        words = max(size // 4, 1)
        group = lanes // together - int(lanes[0]) // together
        pairs = group.astype(np.int64)[:, None] << 32 | (addresses[:, None] // 4 + np.arange(words))
        wanted = np.sort(pairs.reshape(-1))
        wanted = wanted[np.concatenate([[True], wanted[1:] != wanted[:-1]])]
        banks = np.bincount((wanted >> 32) * BANKS + (wanted & (BANKS - 1)), minlength=BANKS)
        banks.resize(-(-len(banks) // BANKS) * BANKS)
        worst = banks.reshape(-1, BANKS).max(1)
        self.add(line, f"shared {verb} wavefronts", int(worst.sum()))
        self.add(line, f"shared {verb} least wavefronts", int((worst > 0).sum()))


def _distinct(values: Array) -> int:
    """How many different values there are."""
    values = np.sort(values)
    return int((values[1:] != values[:-1]).sum()) + 1 if len(values) else 0
