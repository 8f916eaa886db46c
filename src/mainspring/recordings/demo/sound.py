"""How a recording sounds: a decaying tone at each impact, and a quiet hum that follows one ball.

Loudness of an impact comes from its energy, pitch from the ball. Which ball hums is chance; the
hum grows louder and higher with its speed.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32

from mainspring.recordings.demo.physics import Impact, Motion

RATE = 16_000  # samples a second
PARTIALS = ((1.0, 1.0), (2.76, 0.45), (5.4, 0.2))  # ratio of pitch, loudness: a struck bar's
DECAY = 0.07  # s: an impact's sound falls to a third
ATTACK = 0.002  # s
LOUD = 0.5  # amplitude of an impact of energy 1, of full scale
HUM = 0.05  # amplitude of the hum at 120 px/s


def pitch_of(radius: float, material: float) -> float:
    """Pitch in Hz of a ball: small ones are high; `material` is a factor drawn for each ball."""
    return 440.0 * (9 / radius) ** 3 * material


def loudness_of(energy: float) -> float:
    """Amplitude of an impact of an energy, kept between what is heard and what would clip."""
    return float(np.clip(LOUD * math.sqrt(energy), 0.04, 0.6))


def ring(
    seconds: float, impacts: tuple[Impact, ...], pitches: tuple[float, float]
) -> Float[np.ndarray, " samples"]:
    """The impacts' sounds alone."""
    samples = np.zeros(round(seconds * RATE))
    for impact in impacts:
        begin = math.ceil(impact.time * RATE)
        since = np.arange(begin, min(begin + round(6 * DECAY * RATE), len(samples))) / RATE
        since -= impact.time
        tone = np.zeros(len(since))
        for ratio, share in PARTIALS:
            # Higher partials die away sooner.
            fall = np.exp(-since * ratio**0.5 / DECAY)
            tone += share * fall * np.sin(2 * math.pi * ratio * pitches[impact.object] * since)
        tone *= np.minimum(since / ATTACK, 1.0) * loudness_of(impact.energy)
        samples[begin : begin + len(tone)] += tone
    return samples


def hum(
    seconds: float,
    speed: Float[np.ndarray, " times"],
    times: Float[np.ndarray, " times"],
    pitch: float,
) -> Float[np.ndarray, " samples"]:
    """The quiet tone of a ball in motion.

    Args:
        seconds: Length.
        speed: The ball's, px/s, at `times`.
        times: In seconds.
        pitch: The ball's, Hz; the hum lies between half of it and three times it.
    """
    at = np.arange(round(seconds * RATE)) / RATE
    heard = np.minimum(np.interp(at, times, speed) / 120.0, 1.5)
    # Smoothed over 30 ms, because a jump in pitch or loudness would click like an impact.
    width = round(0.03 * RATE)
    heard = np.convolve(np.pad(heard, width // 2, mode="edge"), np.ones(width) / width, "same")
    heard = heard[width // 2 : width // 2 + len(at)]
    phase = 2 * math.pi * np.cumsum(pitch * (0.5 + 1.6 * heard)) / RATE
    return HUM * (0.1 + heard) * np.sin(phase)


def soundtrack(
    motion: Motion, seconds: float, pitches: tuple[float, float], sounding: int
) -> Float32[np.ndarray, " samples"]:
    """Mixes a recording's sound.

    Args:
        motion: Its motion.
        seconds: Length.
        pitches: Of the two balls, Hz.
        sounding: Which ball hums.

    Returns:
        Samples between -1 and 1, `RATE` a second.
    """
    mixed = ring(seconds, motion.impacts, pitches)
    mixed += hum(seconds, motion.speed[sounding], motion.times, pitches[sounding])
    return np.tanh(mixed).astype(np.float32)
