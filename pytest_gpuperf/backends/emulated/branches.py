"""Find the branches that nvcc makes of switched-off instructions, and let passing one by be seen.

Where a branch has little in it, nvcc has all lanes of a warp go through and switches off those that would not
take it. Then a GPU counts the branch's accesses to shared memory, and no wavefront, also for a warp of which
no lane takes it. The end of a kernel behind the branch makes it a real one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count

from pytest_gpuperf.backends.emulated.loops import FUNCTION, MARK, TABLE, Block, blocks_of, with_table

# Seen in what nvcc 13.0 makes for compute capability 9.0 of branches of one to ten accesses or operations.
_MOST = 8
_HOOK = re.compile(r"\tcall\t__tsan_(?:volatile_)?(read|write)(?:1|2|4|8|16)@PLT")
_WORK = re.compile(
    r"\t(?:v?(?:add|sub|mul|div|sqrt|min|max|and|or|xor)[sp][sd]|cvt|add|sub|i?mul|and|or|xor|not|neg|s[ah][lr])"
)
_CONSTANT = re.compile(r"\tmov\w+\t(?:\$\S+, [^%]|\.LC)")
_CALL = re.compile(r"\tcall\t(?!__tls_get_addr)")
_LONG = re.compile(r"\ti?div|\timulq")  # a division or 64-bit multiplication is many instructions of a GPU
_FIRST = 1_000_000  # the first number of our labels, which look like the compiler's for loops.py to know them


def with_branches(assembly: str) -> str:
    """Mark where such a branch is passed by, and add a table of the accesses in them."""
    tables, rows, numbers = set(TABLE.findall(assembly)), list[str](), count()

    def note(match: re.Match[str]) -> str:
        lines = match[0].split("\n")
        behind = list[str]()
        inserted = dict[int, list[str]]()
        for froms, body in _branches(lines, blocks_of(lines, tables)):
            number = next(numbers)
            for line in range(body.begin, body.end):
                if hook := _HOOK.match(lines[line]):
                    label = f".Lgpuperf_hook_{number}_{line}"
                    inserted.setdefault(line + 1, []).append(f"{label}:")
                    rows.append(f"\t.quad\t{number}, {label}, {int(hook[1] == 'write')}\n")
            mark = MARK.format(-1 - number)
            for block, jumps in froms:
                if not jumps:  # it falls through to the join
                    inserted.setdefault(block.end, []).append(mark)
                    continue
                label = f".L{_FIRST + len(rows)}{block.end}"
                last = lines[block.end - 1]
                target = last.rpartition("\t")[2]
                lines[block.end - 1] = last.removesuffix(target) + label
                behind += [f"{label}:", mark, f"\tjmp\t{target}"]
        for line in sorted(inserted, reverse=True):
            lines[line:line] = inserted[line]
        return "\n".join([*lines[:-1], *behind, lines[-1]])

    marked = FUNCTION.sub(note, assembly)
    return with_table(marked, "gpuperf_branch_access_count", "gpuperf_branch_accesses", rows)


_Skip = tuple[Block, bool]  # a block that leads past a branch, and whether by its jump


def _branches(lines: Sequence[str], blocks: Sequence[Block]) -> Iterator[tuple[list[_Skip], Block]]:
    """Yield what leads past a branch, and its body."""
    before: list[list[int]] = [[] for _ in blocks]
    reached, waiting = {0}, [0]
    while waiting:
        number = waiting.pop()
        for following in blocks[number].follow:
            before[following].append(number)
            if following not in reached:
                reached.add(following)
                waiting.append(following)
    for number, body in enumerate(blocks):
        if len(before[number]) != 1 or len(body.follow) != 1 or not _is_short(lines[body.begin : body.end]):
            continue
        join, above = body.follow[0], before[number][0]
        if join == number or _ends(lines, blocks[join]):
            continue
        froms = list[_Skip]()
        inside = number
        # Several conditions make one.
        while set(blocks[above].follow) == {join, inside} and len(blocks[above].follow) == 2:
            froms.append((blocks[above], join != above + 1))
            pure = not any(map(_CALL.match, lines[blocks[above].begin : blocks[above].end]))
            if len(before[above]) != 1 or not pure:
                break
            inside, above = above, before[above][0]
        if froms:
            yield froms, body


def _is_short(body: Sequence[str]) -> bool:
    calls = [line for line in body if _CALL.match(line)]
    if not calls or not all(map(_HOOK.match, calls)):
        return False
    cost = sum(bool(_WORK.match(line) or _CONSTANT.match(line)) for line in body)
    return len(calls) + cost <= _MOST and not any(map(_LONG.match, body))


def _ends(lines: Sequence[str], block: Block) -> bool:
    """Say whether nothing but the function's end is behind a branch."""
    rest = lines[block.begin : block.end]
    return any(line.startswith("\tret") for line in rest) and not any(map(_CALL.match, rest))
