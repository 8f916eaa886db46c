"""A generated world of short films with sound, for demonstration and tests."""

from mainspring.recordings.demo.world import Entry, make_world, plan_world

__all__ = ["Entry", "make_world", "plan_world"]
