"""Find the loops of compiled kernels and let them tell the runtime of each iteration.

Loops are natural ones: an edge to a block that dominates where it comes from closes one. A jump back to
where two branches meet again is none. The compiler could tell of them too, but makes other code then, and
other code makes other requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

FUNCTION = re.compile(r"^\t\.type\t(\S+), @function\n\1:\n.*?^\t\.size\t\1, ", re.MULTILINE | re.DOTALL)
_JUMP = re.compile(r"\t(j\w+)\t(\*?)(\S+)")
_LABEL = re.compile(r"(\.L\w+):")
TABLE = re.compile(r"^\t\.(?:long|quad)\t(\.L\d+)", re.MULTILINE)
# Leaves registers, flags and what lies below the stack pointer as they are.
MARK = "\tleaq\t-128(%rsp), %rsp\n\tpushq\t${}\n\tcall\t*gpuperf_loop@GOTPCREL(%rip)\n\tleaq\t136(%rsp), %rsp"


@dataclass(slots=True)
class Block:
    """A basic block: its lines from ``begin`` to ``end``, and the blocks that may follow."""

    begin: int
    end: int
    follow: list[int] = field(default_factory=list)


def with_loops(assembly: str) -> str:
    """Mark where a loop's iterations begin and where it is left, and add a table of the loops' blocks."""
    tables, rows, numbers = set(TABLE.findall(assembly)), list[str](), count()

    def note(match: re.Match[str]) -> str:
        lines = match[0].split("\n")
        blocks = blocks_of(lines, tables)
        labels, marks = dict[int, str](), dict[int, list[str]]()
        for header, members in _loops(blocks):
            number = next(numbers)
            for member in sorted(members):
                begin, end = (
                    labels.setdefault(line, f".Lgpuperf_{match.start()}_{line}")
                    for line in (blocks[member].begin, blocks[member].end)
                )
                rows.append(f"\t.quad\t{number}, {begin}, {end}\n")
                for following in set(blocks[member].follow) - members:
                    marks.setdefault(blocks[following].begin, []).append(MARK.format(2 * number + 1))
            marks.setdefault(blocks[header].begin, []).append(MARK.format(2 * number))
        for line in sorted(labels.keys() | marks.keys(), reverse=True):
            behind = line + bool(_LABEL.match(lines[line]))
            lines[behind:behind] = dict.fromkeys(marks.get(line, ()))
            lines[line:line] = [f"{labels[line]}:"] if line in labels else []
        return "\n".join(lines)

    marked = FUNCTION.sub(note, assembly)
    return with_table(marked, "gpuperf_loop_block_count", "gpuperf_loop_blocks", rows)


def with_table(assembly: str, count: str, table: str, rows: Sequence[str]) -> str:
    """Add a table for the runtime and the number of its rows, under their names."""
    return (
        f'{assembly}\t.section\t.data.rel.ro,"aw"\n\t.balign\t8\n\t.globl\t{count}, {table}\n'
        f"{count}:\n\t.quad\t{len(rows)}\n{table}:\n{''.join(rows)}"
    )


def blocks_of(lines: Sequence[str], tables: set[str]) -> list[Block]:
    """Split a function's lines at labels and behind jumps."""
    starts, labels = {0}, dict[str, int]()
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            if re.match(r"\.L\d", line):
                starts.add(number)
                labels[label[1]] = number
        elif _JUMP.match(line) or line.startswith("\tret"):
            starts.add(number + 1)
    begins = sorted(starts)
    at = {begin: number for number, begin in enumerate(begins)}
    blocks = []
    for number, (begin, end) in enumerate(zip(begins, [*begins[1:], len(lines) - 1], strict=True)):
        last = lines[end - 1] if end > begin else ""
        jump = _JUMP.match(last)
        follow = [number + 1] if number + 1 < len(begins) else []
        if last.startswith("\tret") or (jump and jump[1] == "jmp"):
            follow = []
        if jump and jump[2]:
            follow += [at[labels[label]] for label in tables if label in labels]
        elif jump and jump[3] in labels:
            follow.append(at[labels[jump[3]]])
        blocks.append(Block(begin, end, follow))
    return blocks


def _loops(blocks: Sequence[Block]) -> Iterator[tuple[int, set[int]]]:
    """Yield the header and the blocks of each loop."""
    before: list[list[int]] = [[] for _ in blocks]
    for number, block in enumerate(blocks):
        for following in block.follow:
            before[following].append(number)
    dominator = _dominators(blocks, before)
    found: dict[int, set[int]] = {}
    for number, block in enumerate(blocks):
        for header in block.follow:
            if number in dominator and _dominates(header, number, dominator):
                members, waiting = found.setdefault(header, {header}), [number]
                while waiting:
                    if (member := waiting.pop()) not in members:
                        members.add(member)
                        waiting += [b for b in before[member] if b in dominator]
    yield from found.items()


def _dominators(blocks: Sequence[Block], before: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return each reachable block's immediate dominator (Cooper, Harvey and Kennedy)."""
    order, stack, seen = list[int](), [(0, iter(blocks[0].follow))], {0}
    while stack:
        number, follow = stack[-1]
        if (following := next((f for f in follow if f not in seen), None)) is None:
            order.append(number)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(blocks[following].follow)))
    rank = {number: place for place, number in enumerate(order)}
    dominator = {0: 0}
    changed = True
    while changed:
        changed = False
        for number in reversed(order[:-1]):
            known = [b for b in before[number] if b in dominator]
            new = known[0]
            for other in known[1:]:
                while new != other:
                    while rank[new] < rank[other]:
                        new = dominator[new]
                    while rank[other] < rank[new]:
                        other = dominator[other]
            if dominator.get(number) != new:
                dominator[number] = new
                changed = True
    return dominator


def _dominates(header: int, number: int, dominator: dict[int, int]) -> bool:
    while number != header and number:
        number = dominator[number]
    return number == header
