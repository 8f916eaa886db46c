import torch

from mainspring.encoders.dropout import Dropout


def test_the_share_the_scale_and_independence():
    torch.manual_seed(0)
    layer, x = Dropout(0.1), torch.ones(1000, 501)
    out = layer(x)
    assert abs(float((out == 0).float().mean()) - 0.1) < 0.002
    assert abs(float(out.mean()) - 1) < 0.002
    gone = (out == 0).float() - 0.1
    neighbours = (gone[:, 1:] * gone[:, :-1]).mean() / (0.1 * 0.9)
    assert abs(float(neighbours)) < 0.01
    assert abs(float((gone[1:] * gone[:-1]).mean()) / 0.09) < 0.01


def test_same_seed_same_coins_and_none_in_evaluation():
    layer, x = Dropout(0.3), torch.randn(7, 3, 5)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)


def test_what_was_dropped_gets_no_gradient():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4, 9, 7, dtype=dtype, requires_grad=True)
        layer = Dropout(0.25)
        out = layer(x)
        assert out.dtype == dtype
        (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
        assert set(grad.unique().tolist()) == {0.0, float(torch.tensor(4 / 3, dtype=dtype))}
        torch.testing.assert_close(out, x * grad)
