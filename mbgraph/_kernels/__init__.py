"""The compiled stack, behind one door. No module outside imports anything else of this package.

Six functions stand in front, each with a plain path of torch or numpy beside it in the module that calls it:

* `encode`: all layers of several relations, combined, at chosen rows (plain: `mbgraph.nn.propagation`);
* `encode_blocks`: the same for all rows of a `BlockMatrix`, on a device that `block_kernels` has kernels for (plain: as
  above; and `Plain`, the same kernels in torch);
* `count_above` and `count_products`: how many items score higher than held-out ones, with `subtract_masked` and
  `subtract_masked_products` for those that are no candidates (plain: `mbgraph.evaluation.ranking`);
* `walk` and `nearest`: from what users touched to what is like it (plain: `mbgraph.models.twostage.walks`);
* `add_likeness`: how like a user is to those of an item (plain: `mbgraph.models.twostage.kernel`).

`available` says whether numba is installed; without it only the plain paths run. Kernels are compiled for a width,
which takes longer than it saves for rows of more than `WIDEST` numbers: those take the plain paths too.
"""

from mbgraph._kernels.adjacency import Adjacency
from mbgraph._kernels.blocks import BlockKernels, BlockMatrix, Plain, block_kernels, encode_blocks
from mbgraph._kernels.compiled import is_kept
from mbgraph._kernels.counts import count_above, count_products, subtract_masked, subtract_masked_products
from mbgraph._kernels.encode import Operator, Workspace, encode
from mbgraph._kernels.likeness import add_likeness
from mbgraph._kernels.rows import available
from mbgraph._kernels.walks import nearest, walk

WIDEST = 1024
"""Numbers of a row, at most."""

__all__ = [
    "WIDEST",
    "Adjacency",
    "BlockKernels",
    "BlockMatrix",
    "Operator",
    "Plain",
    "Workspace",
    "add_likeness",
    "available",
    "block_kernels",
    "count_above",
    "count_products",
    "encode",
    "encode_blocks",
    "is_kept",
    "nearest",
    "subtract_masked",
    "subtract_masked_products",
    "walk",
]
