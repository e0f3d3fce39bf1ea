"""Marks of several annotators in one integer map."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.annotators import MOST, annotators, pack, share, unpack


@given(st.integers(1, MOST), st.integers(0, 2**31 - 1))
def test_what_is_packed_comes_out(count, seed):
    generator = torch.Generator().manual_seed(seed)
    marks = torch.rand(count, 3, 5, generator=generator) < 0.5
    valid = torch.rand(3, 5, generator=generator) < 0.8
    valid[0, 0] = True
    packed = pack(marks, valid)
    assert packed.dtype == torch.int32
    assert annotators(packed) == count
    assert torch.equal(packed == 0, ~valid)
    assert torch.equal(unpack(packed), marks & valid)
    assert torch.equal(packed.float().to(torch.int32), packed)
    expected = torch.where(valid, marks.float().mean(0), -1.0)
    assert torch.allclose(share(packed), expected)


def test_a_batch_may_mix_numbers_of_annotators():
    one, three = pack(torch.ones(1, 1, 1)), pack(torch.tensor([1, 1, 0])[:, None, None])
    assert share(torch.stack([one, three])).flatten().tolist() == pytest.approx([1, 2 / 3])


def test_ignored_everywhere():
    assert annotators(torch.zeros(2, 2, dtype=torch.int32)) == 0
    assert unpack(torch.zeros(2, 2, dtype=torch.int32)).shape == (0, 2, 2)


@pytest.mark.parametrize("count", [0, MOST + 1])
def test_too_few_or_too_many(count):
    with pytest.raises(ValueError, match=f"{count} annotators"):
        pack(torch.zeros(count, 2, 2))
