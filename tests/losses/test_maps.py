"""Choosing one's own map: what is not allowed has no part in loss or accuracy."""

import pytest
import torch
import torch.nn.functional as F

from mainspring.losses.maps import choose_own


def test_what_is_not_allowed_is_neither_in_the_loss_nor_in_the_accuracy():
    scores = torch.tensor([[2.0, 9.0, 1.0], [0.0, 1.0, 3.0], [5.0, 4.0, 5.0]])
    allowed = torch.ones(3, 3, dtype=torch.bool)
    allowed[0, 1] = allowed[2, 0] = False
    loss, accuracy = choose_own(scores, allowed)
    rows = [([2.0, 1.0], 0), ([0.0, 1.0, 3.0], 1), ([4.0, 5.0], 1)]
    want = [float(F.cross_entropy(torch.tensor(row), torch.tensor(own))) for row, own in rows]
    assert float(loss) == pytest.approx(sum(want) / 3)
    assert float(accuracy) == pytest.approx(2 / 3)
    assert float(choose_own(scores, torch.ones(3, 3, dtype=torch.bool))[1]) == 0  # and one tie
