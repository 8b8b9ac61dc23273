"""Where the ways of a branch meet again: immediate post-dominators of the control-flow graph.

The algorithm is that of K. D. Cooper, T. J. Harvey and K. Kennedy, "A Simple, Fast Dominance Algorithm" (2001), run on
the reversed graph.
"""

from tidepool.simulator.ptx.program import Instruction

BRANCHES = ("bra", "brx")
ENDS = ("ret", "exit")


def joins_of(instructions: list[Instruction]) -> dict[int, int]:
    """Branch -> the first instruction that every way from it passes; the number of instructions for the exit."""
    count = len(instructions)
    heads = _heads(instructions)
    block_of = {head: block for block, head in enumerate(heads)}
    block_of[count] = leave = len(heads)
    lasts = [(heads[block + 1] if block + 1 < len(heads) else count) - 1 for block in range(len(heads))]
    successors = [sorted({block_of[at] for at in _next(instructions[last], count)}) for last in lasts]
    dominator = _post_dominators(successors, leave)
    heads.append(count)
    return {
        last: heads[dominator.get(block, leave)]
        for block, last in enumerate(lasts)
        if instructions[last].name in BRANCHES
    }


def _heads(instructions: list[Instruction]) -> list[int]:
    """First instructions of the basic blocks."""
    found = {0}
    for instruction in instructions:
        if instruction.name in BRANCHES + ENDS:
            found.update(instruction.targets)
            found.add(instruction.number + 1)
    return sorted(found - {len(instructions)})


def _next(instruction: Instruction, count: int) -> list[int]:
    following = instruction.number + 1
    goes_on = instruction.guard is not None
    if instruction.name in BRANCHES:
        return [*instruction.targets, *([following] if goes_on else [])]
    if instruction.name in ENDS:
        return [count, *([following] if goes_on else [])]
    return [following]


def _post_dominators(successors: list[list[int]], leave: int) -> dict[int, int]:
    predecessors: list[list[int]] = [[] for _ in range(leave + 1)]
    for block, followers in enumerate(successors):
        for follower in followers:
            predecessors[follower].append(block)
    order = _post_order(predecessors, leave)
    rank = {block: position for position, block in enumerate(order)}
    known = {leave: leave}

    def common(a: int, b: int) -> int:
        while a != b:
            while rank[a] < rank[b]:
                a = known[a]
            while rank[b] < rank[a]:
                b = known[b]
        return a

    changed = True
    while changed:
        changed = False
        for block in reversed(order[:-1]):
            meeting: int | None = None
            for follower in successors[block]:
                if follower in known:
                    meeting = follower if meeting is None else common(meeting, follower)
            if meeting is not None and known.get(block) != meeting:
                known[block] = meeting
                changed = True
    return known


def _post_order(edges: list[list[int]], root: int) -> list[int]:
    order: list[int] = []
    seen = {root}
    stack = [(root, iter(edges[root]))]
    while stack:
        block, following = stack[-1]
        for other in following:
            if other not in seen:
                seen.add(other)
                stack.append((other, iter(edges[other])))
                break
        else:
            order.append(block)
            stack.pop()
    return order
