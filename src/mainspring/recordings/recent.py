"""A small memory of what was used last: bounded by weight, safe in threads, empty when pickled."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Keeps the values used last, as many as their weights allow.

    Args:
        limit: Greatest sum of weights (bytes, or a count where each value weighs 1).
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.weight = 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """The value kept under `key`, if it is still there."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Value, weight: int = 1) -> Value:
        """Keeps `value` and forgets what was used longest ago, where the limit asks for it.

        Returns:
            The value itself, which is kept even where it alone outweighs the limit.
        """
        with self._lock:
            if key in self._values:
                self.weight -= self._values.pop(key)[1]
            self._values[key] = (value, weight)
            self.weight += weight
            while self.weight > self.limit and len(self._values) > 1:
                self.weight -= self._values.popitem(last=False)[1][1]
        return value

    def __getstate__(self) -> int:
        return self.limit

    def __setstate__(self, limit: int) -> None:
        Recent.__init__(self, limit)
