"""How many threads small matrix products get."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from threadpoolctl import threadpool_limits

SMALL = 2**22
"""Values of a matrix up to which a product with a few columns is done sooner by one thread."""


def few_threads(values: int) -> AbstractContextManager[object]:
    """One thread for the matrix products within, where matrices hold so few values.

    Fits of linear models are thousands of small products by NumPy and SciPy in turn, each with
    threads of its own, which wait for work by keeping the processor busy: on two cores a probe of
    480 vectors of 256 took 30 times as long as by one thread.
    """
    return threadpool_limits(1, user_api="blas") if values <= SMALL else nullcontext()
