"""The same kernel with a stated share of its work done twice: a real slowdown, not a sleep.

The grid gets more blocks in its longest direction, and blocks beyond its own edge do the work of the
first ones again. They write what is there already, so results stay right; source, grid and compile
options are no part of a baseline's contract, so the question stays the same too.
"""

from __future__ import annotations

_OWN_BLOCK = """\
static __device__ __forceinline__ uint3 own_block()
{
    uint3 block = blockIdx;
    block.x %= OWN_BLOCKS_X;
    block.y %= OWN_BLOCKS_Y;
    return block;
}
#define blockIdx own_block()
"""


def wrapped(source: str) -> str:
    """A kernel file whose blocks beyond OWN_BLOCKS_X and OWN_BLOCKS_Y start again from the first."""
    return _OWN_BLOCK + source


def options(grid: tuple[int, int]) -> tuple[str, str]:
    """The compile options of ``wrapped`` for the grid that the work needs."""
    return f"-DOWN_BLOCKS_X={grid[0]}", f"-DOWN_BLOCKS_Y={grid[1]}"


def enlarged(grid: tuple[int, int], percent: int) -> tuple[int, int]:
    """The grid with ``percent`` more blocks, in its y or, if that is 1, in its x direction.

    Raises ValueError where that is no whole number of blocks: the slowdown would not be what is said.
    """
    x, y = grid
    length = y if y > 1 else x
    more, rest = divmod(length * percent, 100)
    if rest:
        raise ValueError(f"{percent} % of {length} blocks are no whole blocks; take a multiple of 100")
    return (x, y + more) if y > 1 else (x + more, y)
