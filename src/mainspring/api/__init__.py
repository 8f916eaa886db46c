"""What Mainspring does, a function a verb. The command line is a thin layer over these.

import mainspring as ms

ms.pretrain("videos/", pretext="taco", out="runs/first")
vectors = ms.embed("runs/first", "videos/")
result = ms.probe("runs/first", "videos/", labels="labels.csv")
hits = ms.search("runs/first", "videos/a.mp4@2.0-4.0")
"""

from mainspring.api.data import check, counter, recordings
from mainspring.api.labels import Probed, probe
from mainspring.api.series import anomaly, classify, cluster, forecast, times
from mainspring.api.training import pretrain
from mainspring.api.vectors import embed, load, reader_for, search

__all__ = [
    "Probed",
    "anomaly",
    "check",
    "classify",
    "cluster",
    "counter",
    "embed",
    "forecast",
    "load",
    "pretrain",
    "probe",
    "reader_for",
    "recordings",
    "search",
    "times",
]
