"""Which clips of sound hold any: silent ones have nothing to say about what belongs together.

    loud = heard(samples, present)        # Bool (n,), False where a clip is silent or absent

A silent clip goes with every picture and with every other silent clip. As a positive it teaches
that nothing belongs to anything, and as a negative it is one that cannot be told apart, so the
pretexts that join sound to other streams leave it out, as they do clips that are not there.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

FLOOR_DECIBELS = -60.0
"""Root mean square, beside a full scale of 1, below which a clip counts as silent: an amplitude of
one thousandth. Sound played so that full scale is loud (90 dB) is then as faint as the background
of a quiet room (30 dB). Rounding to 16 bits lies far below it (-101 dB), and little real sound lies
near it: of the seconds in environmental recordings (ESC-10) and street videos 0.4 and 2.7 % are
within 10 dB of it, so that the exact value matters little. `mainspring check` calls a recording
silent whose peak stays below the same amplitude."""


def heard(
    samples: Float[Tensor, "n time"],
    present: Bool[Tensor, "n time"],
    floor: float = FLOOR_DECIBELS,
) -> Bool[Tensor, "n"]:
    """Whether each clip holds sound.

    The level is that of what changes: a constant signal, whatever its height, is an offset of the
    recorder and no sound.

    Args:
        samples: Sound, 1 being full scale.
        present: Where there are samples; the others have no say, whatever stands there.
        floor: Decibels of full scale, of the root mean square over what is present.

    Returns:
        False where a clip is silent, constant, or absent.
    """
    sound = samples.float().where(present, 0)
    count = present.sum(dim=1).clamp(min=1)
    offset = sound.sum(dim=1) / count
    change = (sound - offset[:, None]).where(present, 0)
    level = change.square().sum(dim=1).div(count).sqrt()
    # A mean is rounded, so that a constant may seem to change in its last digits.
    low = sound.where(present, float("inf")).amin(dim=1)
    high = sound.where(present, float("-inf")).amax(dim=1)
    return (level >= 10 ** (floor / 20)) & (high > low)
