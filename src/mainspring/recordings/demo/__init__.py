"""A generated world of short films with sound, for demonstration and tests."""

from mainspring.recordings.demo.plan import Entry, plan_world
from mainspring.recordings.demo.world import make_world

__all__ = ["Entry", "make_world", "plan_world"]
