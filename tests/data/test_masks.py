"""Items that are not shown, against sets."""

import numpy as np
import pytest

from mbgraph.data.masks import MASKS, masked_items
from mbgraph.errors import UnknownNameError


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("split", ["valid", "test", None])
def test_masks_are_sets_of_items(small, mask, split):
    def items(*parts):
        return [sorted({int(i) for p in parts for i in p.item[p.user == user]}) for user in range(small.num_users)]

    buys, valid = small.edges["buy"], small.valid
    expected = {
        "train-target": items(buys),
        "train+valid-target": items(buys, valid) if split == "test" else items(buys),
        "all-behaviors": items(*small.edges.values()),
        "none": items(),
    }[mask]
    found = masked_items(small, mask, split)
    assert [found.row(user).tolist() for user in range(small.num_users)] == expected


def test_data_without_validation_pairs(small):
    bare = small.replace(splits={"test": small.test})
    found = masked_items(bare, "train+valid-target", "test")
    assert np.array_equal(found.indices, bare.csr("buy").indices)


def test_another_mask_is_refused(small):
    with pytest.raises(UnknownNameError, match=r"unknown mask 'train'; (did you mean|choose from)"):
        masked_items(small, "train")
