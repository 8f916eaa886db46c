"""Video and sound on one grid of frames: what encoders make of both, at the same times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mainspring.encoders.encoder import Encoder
from mainspring.encoders.logmel import LogMel
from mainspring.pretexts.cepstra import cepstra
from mainspring.pretexts.frames import at_places, token_stride

BANDS_A_TOKEN = 16


@dataclass(frozen=True)
class Grid:
    """Frames at regular times, of which the first is the first of a video clip and the first
    sample of its sound.

    Attributes:
        count: Frames; those of a video clip.
        seconds: From one frame to the next.
    """

    count: int
    seconds: float

    def see(
        self,
        encoder: Encoder,
        film: Tensor,
        rows: Bool[Tensor, "n"],
        shown: Bool[Tensor, "n frame"] | None = None,
    ) -> Float[Tensor, "n frame dim"]:
        """Features a frame of some rows' video, averaged over the picture; zeros in other rows.

        Args:
            encoder: Of video.
            film: Clips of `count` pictures.
            rows: Which to look at; the others are not encoded.
            shown: False where a picture becomes the mean colour.
        """
        frames = torch.zeros(*film.shape[:2], encoder.dim, device=film.device)
        if rows.any():
            tokens = encoder.tokens(film[rows], None if shown is None else shown[rows])
            places = torch.arange(self.count) / token_stride(self.count, tokens.shape[1])
            frames[rows] = at_places(tokens.flatten(2, -2).float().mean(2), places)
        return frames

    def hear(
        self,
        encoder: Encoder,
        sound: Float[Tensor, "n time"],
        rows: Bool[Tensor, "n"],
        hidden: Bool[Tensor, "n frame"] | None = None,
        blank: Float[Tensor, "bands"] | None = None,
    ) -> Float[Tensor, "n frame bands_by_dim"]:
        """Features a frame of some rows' sound, its bands side by side; zeros in other rows.

        Args:
            encoder: Of sound.
            sound: As long as the clips of video.
            rows: Which to listen to; the others are not encoded.
            hidden: Frames whose part of the spectrogram is replaced by `blank`. The spectrogram is
                normalised over all of it before, so mean and scale know the hidden part a little.
            blank: What is heard there.
        """
        assert isinstance(encoder, LogMel), "attach looks at that"
        frames = torch.zeros(len(sound), self.count, heard_width(encoder), device=sound.device)
        if rows.any():
            levels = encoder.prepare(sound[rows])
            if hidden is not None and blank is not None:
                covered = hidden[rows][:, self.frame_of(encoder, levels.shape[1]).to(hidden.device)]
                levels = torch.where(covered[..., None], blank.to(levels.dtype), levels)
            tokens = encoder.trunk(encoder.stem(levels)).flatten(2)
            samples = torch.arange(self.count) * self.seconds * encoder.settings["rate"]
            window = (samples - _first(encoder)) / encoder.hop
            places = window / token_stride(levels.shape[1], tokens.shape[1])
            frames[rows] = at_places(tokens, places)
        return frames

    def cepstra(
        self, encoder: Encoder, sound: Float[Tensor, "n time"], basis: Float[Tensor, "bands count"]
    ) -> Float[Tensor, "n frame three_counts"]:
        """Cepstra and their derivatives, the mean over the windows of each frame. They are those of
        log-mel bands as the encoder normalises them, so that nothing is asked that it cannot
        hear."""
        assert isinstance(encoder, LogMel), "attach looks at that"
        described = cepstra(encoder.prepare(sound).float(), basis)
        member = F.one_hot(self.frame_of(encoder, described.shape[1]), self.count).float()
        member = member.to(described.device)
        with torch.autocast(described.device.type, enabled=False):
            return torch.einsum("wf,nwd->nfd", member / member.sum(0), described)

    def frame_of(self, encoder: LogMel, windows: int) -> Int64[Tensor, "windows"]:
        """The frame nearest in time to each window of a spectrogram."""
        middle = _first(encoder) + encoder.hop * torch.arange(windows)
        frame = (middle / (self.seconds * encoder.settings["rate"]) + 0.5).floor().long()
        return frame.clamp(max=self.count - 1)


def heard_width(encoder: Encoder) -> int:
    """Width of what `Grid.hear` gives: the encoder's, for each token over the bands."""
    return encoder.dim * -(-int(encoder.settings["mels"]) // BANDS_A_TOKEN)


def _first(encoder: LogMel) -> int:
    """The sample in the middle of a spectrogram's first window."""
    return 0 if encoder.centred else len(encoder.taper) // 2
