from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.encoders import catalog, precision
from mainspring.encoders.r2plus1d import R2Plus1D18, R2Plus1DTiny, TemporalConv
from mainspring.encoders.r3d import R3D18
from mainspring.encoders.slow import Basic, Bottleneck, Residual, Slow18, Slow50
from mainspring.encoders.video import VideoEncoder
from mainspring.encoders.video_resnet import Block
from mainspring.errors import ConfigError

SMALL = [
    R3D18(width=8),
    R2Plus1D18(width=8),
    R2Plus1DTiny(),
    Slow18(width=8),
    Slow50(width=8, blocks=(1, 1, 1, 1)),
]


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def torchvision(factorised: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the public checkpoints r3d_18 and r2plus1d_18, without fc."""
    if factorised:
        shapes = {"stem.0.weight": (45, 3, 1, 7, 7), **norm("stem.1", 45)}
        shapes |= {"stem.3.weight": (64, 45, 3, 1, 1), **norm("stem.4", 64)}
    else:
        shapes = {"stem.0.weight": (64, 3, 3, 7, 7), **norm("stem.1", 64)}
    between = {  # of both convolutions of a block, by stage and block
        (1, 0): 144, (1, 1): 144, (2, 0): 230, (2, 1): 288,
        (3, 0): 460, (3, 1): 576, (4, 0): 921, (4, 1): 1152,
    }  # fmt: skip
    for (stage, block), middle in between.items():
        outside = 32 * 2**stage
        for convolution in (1, 2):
            inside = outside // 2 if stage > 1 and block == 0 and convolution == 1 else outside
            at = f"layer{stage}.{block}.conv{convolution}"
            if factorised:
                shapes[f"{at}.0.0.weight"] = (middle, inside, 1, 3, 3)
                shapes |= norm(f"{at}.0.1", middle)
                shapes[f"{at}.0.3.weight"] = (outside, middle, 3, 1, 1)
            else:
                shapes[f"{at}.0.weight"] = (outside, inside, 3, 3, 3)
            shapes |= norm(f"{at}.1", outside)
        if stage > 1 and block == 0:
            at = f"layer{stage}.{block}.downsample"
            shapes[f"{at}.0.weight"] = (outside, outside // 2, 1, 1, 1)
            shapes |= norm(f"{at}.1", outside)
    return shapes


def pyslowfast(inner: tuple[int, ...], blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes in PySlowFast's SLOW_8x8_R50, without its head."""
    shapes = {"s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7), **norm("s1.pathway0_stem.bn", 64)}
    inside = 64
    for stage, (width, count) in enumerate(zip(inner, blocks, strict=True), start=2):
        time = 3 if stage >= 4 else 1
        for block in range(count):
            at = f"s{stage}.pathway0_res{block}"
            if block == 0:
                shapes[f"{at}.branch1.weight"] = (4 * width, inside, 1, 1, 1)
                shapes |= norm(f"{at}.branch1_bn", 4 * width)
            shapes[f"{at}.branch2.a.weight"] = (width, inside, time, 1, 1)
            shapes[f"{at}.branch2.b.weight"] = (width, width, 1, 3, 3)
            shapes[f"{at}.branch2.c.weight"] = (4 * width, width, 1, 1, 1)
            for part, channels in (("a", width), ("b", width), ("c", 4 * width)):
                shapes |= norm(f"{at}.branch2.{part}_bn", channels)
            inside = 4 * width
    return shapes


def shapes_of(encoder: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in encoder.state_dict().items()}


def clips(count: int, time: int, size: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, time, size, size, 3), dtype=torch.uint8, generator=random)


@pytest.mark.parametrize(
    ("encoder", "factorised", "published"),
    [(R3D18, False, 33_371_472), (R2Plus1D18, True, 31_505_325)],
)
def test_public_checkpoints_have_the_same_names_shapes_and_count(
    encoder: type[VideoEncoder], factorised: bool, published: int
) -> None:
    built = encoder()
    assert shapes_of(built) == torchvision(factorised)
    classifier = 512 * 400 + 400
    assert sum(p.numel() for p in built.parameters()) == published - classifier


def test_slow50_has_the_names_and_the_count_of_the_public_checkpoint() -> None:
    built = Slow50()
    assert shapes_of(built) == pyslowfast((64, 128, 256, 512), (3, 4, 6, 3))
    assert round((sum(p.numel() for p in built.parameters()) + 2048 * 400 + 400) / 1e6, 2) == 32.45


def normalised(x: Tensor, layer: nn.Module) -> Tensor:
    """Batch normalisation in training, written out."""
    mean = x.mean((0, 2, 3, 4), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3, 4), keepdim=True)
    scale, shift = (layer.get_parameter(n).view(1, -1, 1, 1, 1) for n in ("weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize(("inside", "time", "space"), [(4, 1, 1), (4, 2, 2), (4, 1, 2)])
def test_factorised_block_equals_its_formula_in_float64(inside: int, time: int, space: int) -> None:
    torch.manual_seed(0)
    outside = inside * space
    block = Block(R2Plus1D18.convolution, inside, outside, time, space).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    weight = dict(block.named_parameters())
    x = torch.randn(2, inside, 4, 6, 6, dtype=torch.float64)

    def both(x: Tensor, at: str, time: int, space: int) -> Tensor:
        layers = block.get_submodule(f"{at}.0")
        x = F.conv3d(x, weight[f"{at}.0.0.weight"], stride=(1, space, space), padding=(0, 1, 1))
        x = normalised(x, layers.get_submodule("1")).clamp(min=0)
        x = F.conv3d(x, weight[f"{at}.0.3.weight"], stride=(time, 1, 1), padding=(1, 0, 0))
        return normalised(x, block.get_submodule(f"{at}.1"))

    shortcut = x
    if space > 1:
        projected = x[:, :, ::time, ::space, ::space]
        projected = torch.einsum(
            "nithw,oi->nothw", projected, weight["downsample.0.weight"][..., 0, 0, 0]
        )
        shortcut = normalised(projected, block.get_submodule("downsample.1"))
    branch = both(both(x, "conv1", time, space).clamp(min=0), "conv2", 1, 1)
    torch.testing.assert_close(block(x), (branch + shortcut).clamp(min=0))


@pytest.mark.parametrize(
    ("branch", "kernels"),
    [(Basic, {"a": (3, 3), "b": (1, 3)}), (Bottleneck, {"a": (3, 1), "b": (1, 3), "c": (1, 1)})],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_slow_block_equals_its_formula_in_float64(
    branch: type[Basic | Bottleneck], kernels: dict[str, tuple[int, int]], stride: int
) -> None:
    torch.manual_seed(0)
    block = Residual(branch, 4, 6, 3, stride).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    weight = dict(block.named_parameters())
    x = torch.randn(2, 4, 4, 6, 6, dtype=torch.float64)
    inner, left = x, stride  # the first convolution over space strides
    for at, (time, space) in kernels.items():
        step, left = (left, 1) if space == 3 else (1, left)
        inner = F.conv3d(
            inner if inner is x else inner.clamp(min=0),
            weight[f"branch2.{at}.weight"],
            stride=(1, step, step),
            padding=(time // 2, space // 2, space // 2),
        )
        inner = normalised(inner, block.get_submodule(f"branch2.{at}_bn"))
    shortcut = F.conv3d(x, weight["branch1.weight"], stride=(1, stride, stride))
    shortcut = normalised(shortcut, block.get_submodule("branch1_bn"))
    torch.testing.assert_close(block(x), (inner + shortcut).clamp(min=0))


def test_slow18_begins_with_a_rectified_convolution_and_looks_along_time_from_res4() -> None:
    encoder = Slow18(width=8).double()
    first = encoder.get_submodule("s1.pathway0_stem")
    pixels = torch.randn(2, 3, 2, 32, 32, dtype=torch.float64)
    x = F.conv3d(pixels, first.get_parameter("conv.weight"), stride=(1, 2, 2), padding=(0, 3, 3))
    x = normalised(x, first.get_submodule("bn")).clamp(min=0)
    want = F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    torch.testing.assert_close(encoder.stem(pixels), want)
    shapes = shapes_of(encoder)
    for stage, time in ((2, 1), (3, 1), (4, 3), (5, 3)):
        for block in (0, 1):
            at = f"s{stage}.pathway0_res{block}.branch2"
            assert shapes[f"{at}.a.weight"][2:] == (time, 3, 3)
            assert shapes[f"{at}.b.weight"][2:] == (1, 3, 3)


@pytest.mark.parametrize("kind", [R3D18, R2Plus1D18, Slow18])
def test_convolutions_begin_with_a_variance_of_2_over_fan_out(kind: type[VideoEncoder]) -> None:
    torch.manual_seed(0)
    convolutions = [m for m in kind(width=16).modules() if isinstance(m, nn.Conv3d)]
    large = [m.weight for m in convolutions if m.weight.numel() > 4000]
    assert any(weight.shape[0] != weight.shape[1] for weight in large)
    for weight in large:
        fan_out = weight.shape[0] * weight[0, 0].numel()
        assert float(weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_temporal_convolution_equals_conv3d_forward_and_backward(
    stride: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    layer = TemporalConv(5, 7, stride).double()
    x = torch.randn(2, 5, 6, 4, 3, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    expected = F.conv3d(x, layer.weight, stride=(stride, 1, 1), padding=(1, 0, 0))
    torch.testing.assert_close(layer(x), expected)
    probe = torch.randn_like(expected)
    ours = torch.autograd.grad((layer(x) * probe).sum(), (x, layer.weight))
    theirs = torch.autograd.grad((expected * probe).sum(), (x, layer.weight))
    torch.testing.assert_close(ours, theirs)


def test_prepare_normalises_bytes_and_floats_alike_without_transposing() -> None:
    encoder = R2Plus1DTiny()
    samples = clips(2, 3, 4)
    pixels = encoder.prepare(samples)
    mean, std = (
        torch.tensor([0.43216, 0.394666, 0.37645]),
        torch.tensor([0.22803, 0.22145, 0.216989]),
    )
    expected = ((samples.double() / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(pixels.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.prepare(samples.float() / 255), pixels)
    assert pixels.is_contiguous(memory_format=torch.channels_last_3d)
    assert samples.equal(clips(2, 3, 4)), "the reader's samples were written to"


def test_padding_becomes_the_mean_colour_and_leaves_the_embedding() -> None:
    encoder = Slow18(width=8).eval()
    samples, present = clips(1, 8, 32), torch.tensor([[True] * 5 + [False] * 3])
    other = samples.clone()
    other[:, 5:] = 7
    assert encoder(samples, present).equal(encoder(other, present))
    assert encoder.prepare(samples, present)[:, :, 5:].eq(0).all()
    tokens = encoder.tokens(samples, present)
    torch.testing.assert_close(encoder.embed(tokens, present), tokens[:, :5].mean((1, 2, 3)))
    torch.testing.assert_close(
        encoder.embed(tokens, torch.ones(1, 8).bool()), encoder.embed(tokens)
    )


def test_a_token_that_saw_any_frame_counts_whole() -> None:
    encoder = R3D18(width=4).eval()
    present = torch.tensor([[True] * 9 + [False] * 7, [True] * 16])
    tokens = encoder.tokens(clips(2, 16, 32), present)  # two tokens of eight frames each
    torch.testing.assert_close(encoder.embed(tokens, present), encoder.embed(tokens))
    few = torch.tensor([[True] * 5 + [False] * 11] * 2)
    torch.testing.assert_close(encoder.embed(tokens, few), tokens[:, 0].mean((1, 2)))


@pytest.mark.parametrize("encoder", SMALL, ids=lambda e: type(e).__name__)
def test_settings_build_the_same_encoder_again(encoder: VideoEncoder) -> None:
    again = type(encoder)(**encoder.settings)
    assert shapes_of(again) == shapes_of(encoder)
    assert again.settings == encoder.settings
    tokens = again.tokens(clips(2, 8, 32))
    assert tokens.shape[-1] == again.dim == again.embed(tokens).shape[-1]
    assert catalog.find(catalog.name_of(type(encoder))) is type(encoder)


@pytest.mark.parametrize(("stride", "frames"), [(2, 1), (1, 8)])
def test_temporal_stride_halves_time_thrice_or_keeps_it(stride: int, frames: int) -> None:
    tokens = R3D18(width=8, temporal_stride=stride).tokens(clips(1, 8, 32))
    assert tokens.shape[1:4] == (frames, 2, 2)


def test_slow_looks_along_time_only_from_res4() -> None:
    torch.manual_seed(0)
    encoder = Slow50(width=8, blocks=(1, 1, 1, 1), zero_last_gamma=False).eval()
    order = torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    pixels = encoder.prepare(clips(1, 8, 32))

    def upto(pixels: Tensor, last: int) -> Tensor:
        x = encoder.stem(pixels)
        for number in range(2, last + 1):
            x = encoder.stage(x, number)
        return x

    torch.testing.assert_close(upto(pixels[:, :, order], 3), upto(pixels, 3)[:, :, order])
    difference = upto(pixels[:, :, order], 4) - upto(pixels, 4)[:, :, order]
    assert difference.abs().max() > 0.01


def test_zero_gamma_makes_each_block_its_shortcut() -> None:
    block = Slow18(width=8).get_submodule("s2.pathway0_res0")
    x = torch.rand(2, 8, 3, 5, 5)
    assert block(x).equal(x)
    public = R3D18(width=8).get_submodule("layer1.0")
    assert isinstance(public, Block)
    assert public.last_norm.get_parameter("weight").eq(1).all()


@pytest.mark.parametrize("encoder", SMALL, ids=lambda e: type(e).__name__)
def test_bf16_with_channels_last_agrees_with_the_plain_way(encoder: VideoEncoder) -> None:
    torch.manual_seed(0)
    plain = type(encoder)(**encoder.settings)
    fast = type(encoder)(**encoder.settings)
    fast.load_state_dict(plain.state_dict())
    for one in (plain, fast):
        one.eval()  # batch statistics of four clips would magnify the rounding
    for size in (32, 16):  # at 16 pixels a strided convolution ends one pixel wide
        samples = clips(4, 8, size)
        expected = plain(samples)
        chosen = precision.Precision("cpu", bf16=True)
        with chosen.autocast():
            got = precision.prepare(fast, chosen)(samples)
        assert got.dtype == torch.float32
        assert F.cosine_similarity(got, expected).min() > 0.999
        exact = precision.prepare(fast, precision.Precision("cpu", bf16=False))(samples)
        torch.testing.assert_close(exact, expected, atol=2e-3, rtol=2e-3)


def test_precision_is_named_or_chosen_by_hardware() -> None:
    cpu = torch.device("cpu")
    assert precision.choose("fp32", cpu) == precision.Precision("cpu", bf16=False)
    assert precision.choose("bf16", cpu) == precision.Precision("cpu", bf16=True)
    assert precision.choose("auto", cpu).bf16 == precision.faster_in_bf16(cpu)
    with pytest.raises(ConfigError, match="Did you mean 'bf16'"):
        precision.choose("bf6", cpu)


@pytest.mark.parametrize(
    ("instructions", "gain", "chosen"),
    [(True, 2.0, "bf16"), (True, 0.5, "fp32"), (False, 2.0, "fp32")],
)
def test_instructions_for_bfloat16_have_to_make_it_faster(monkeypatch, instructions, gain, chosen):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(precision, "_gain", lambda: gain)
    assert precision.choose("auto", torch.device("cpu")).name == chosen
    assert precision.choose("bf16", torch.device("cpu")).name == "bf16"


def test_the_gain_by_bfloat16_is_measured_by_products(monkeypatch):
    seconds = iter([0.0, 3.0, 3.0, 5.0] * precision.ROUNDS)  # float32 takes 3, bfloat16 2
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(seconds))
    precision._gain.cache_clear()
    assert precision._gain() == 1.5
    precision._gain.cache_clear()


def test_a_typo_in_a_name_gets_a_suggestion() -> None:
    assert {"r3d18", "r2plus1d18", "r2plus1d_tiny", "slow18", "slow50"} <= set(catalog.names())
    with pytest.raises(
        ConfigError, match=r"Unknown encoder 'r2plus1_tiny'\. Did you mean 'r2plus1d_tiny'"
    ):
        catalog.find("r2plus1_tiny")


@pytest.mark.parametrize("wrong", [{"width": 0}, {"blocks": (2, 2)}, {"blocks": (2, 0, 2, 2)}])
@pytest.mark.parametrize("encoder", [R3D18, Slow18])
def test_impossible_settings_are_named(encoder: type[VideoEncoder], wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        encoder(**wrong)


@pytest.mark.parametrize("kind", [R2Plus1DTiny, R3D18, Slow18])
def test_what_stands_still_is_not_seen_where_movement_is(kind: type[VideoEncoder]) -> None:
    encoder = kind(width=4, moving=True)
    assert encoder.settings["moving"]
    still = torch.randint(60, 150, (1, 1, 16, 16, 3), dtype=torch.uint8).repeat(1, 5, 1, 1, 1)
    grey = kind(width=4).prepare(torch.full(still.shape, 0.5))
    torch.testing.assert_close(encoder.prepare(still), grey)
    one, two = still.clone(), still + 20
    one[:, 3, 4:8, 4:8] += 50
    two[:, 3, 4:8, 4:8] += 50
    torch.testing.assert_close(encoder.prepare(one), encoder.prepare(two))
    torch.testing.assert_close(encoder.prepare(one), encoder.prepare(one / 255))
    expected = torch.full(still.shape, 0.5)
    expected[:, :, 4:8, 4:8] -= 10 / 255
    expected[:, 3, 4:8, 4:8] += 50 / 255
    torch.testing.assert_close(encoder.prepare(one), kind(width=4).prepare(expected))
    # Frames of padding have no part in the mean.
    present = torch.tensor([[True, True, True, True, False]])
    padded = encoder.prepare(one, present)[:, :, :4]
    torch.testing.assert_close(padded, encoder.prepare(one[:, :4]))
