"""What happened before what, among the warps of each program: vector clocks.

Agents are the program's warps and one more for each mbarrier, whose copies arrive on their own. `knows[cta, a, b]` is
the last step of agent b that warp a has to have seen; barriers and mbarriers pass that knowledge on (memory consistency
model, PTX ISA 8.7 section 8; L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", 1978).
`fenced` is the same for what the asynchronous proxy may see of ordinary writes (section 8.6, proxies).
"""

import numpy as np

from tidepool.simulator.numbers import Array


class Order:
    """The clocks of a chunk of `ctas` programs of `warps` warps."""

    def __init__(self, ctas: int, warps: int) -> None:
        self.ctas, self.warps = ctas, warps
        self.agents = warps
        self.knows = np.zeros((ctas, warps, warps), np.int32)
        self.knows[:, np.arange(warps), np.arange(warps)] = 1
        self.fenced = np.zeros_like(self.knows)

    def new_agent(self) -> int:
        """One more agent, for copies that arrive at an mbarrier."""
        grown = [(0, 0), (0, 0), (0, 1)]
        self.knows, self.fenced = np.pad(self.knows, grown), np.pad(self.fenced, grown)
        self.agents += 1
        return self.agents - 1

    def now(self, ctas: Array, warps: Array) -> Array:
        """The steps that warps of programs are at."""
        return self.knows[ctas, warps, warps]

    def meet(self, cta: int, warps: Array) -> None:
        """Warps of a program have been at a barrier together: each knows what any knew."""
        self.knows[cta, warps] = self.knows[cta, warps].max(0)
        self.fenced[cta, warps] = self.fenced[cta, warps].max(0)
        self.knows[cta, warps, warps] += 1

    def meet_all(self, ctas: Array) -> None:
        """All warps of these programs have been at a barrier together."""
        self.knows[ctas] = self.knows[ctas].max(1, keepdims=True)
        self.fenced[ctas] = self.fenced[ctas].max(1, keepdims=True)
        own = np.arange(self.warps)
        self.knows[ctas[:, None], own, own] += 1

    def fence(self, ctas: Array, warps: Array) -> None:
        """fence.proxy.async: what these warps know of is there for the asynchronous proxy."""
        self.fenced[ctas, warps] = np.maximum(self.fenced[ctas, warps], self.knows[ctas, warps])
        self.knows[ctas, warps, warps] += 1
