"""What Mainspring does, a function a verb. The command line is a thin layer over these.

import mainspring as ms

ms.pretrain("videos/", pretext="taco", out="runs/first")
vectors = ms.embed("runs/first", "videos/")
result = ms.probe("runs/first", "videos/", labels="labels.csv")
hits = ms.search("runs/first", "videos/a.mp4@2.0-4.0")
"""

from mainspring.api.anomalies import anomaly
from mainspring.api.classes import classify
from mainspring.api.clusters import cluster
from mainspring.api.data import catalogue, check, counter
from mainspring.api.forecasts import forecast
from mainspring.api.in_step import sync
from mainspring.api.labels import Probed, probe
from mainspring.api.modalities import across
from mainspring.api.training import pretrain
from mainspring.api.vectors import embed, load, reader_for, search

__all__ = [
    "Probed",
    "across",
    "anomaly",
    "catalogue",
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
    "search",
    "sync",
]
