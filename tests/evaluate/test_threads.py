import numpy as np
from threadpoolctl import threadpool_info

from mainspring.evaluate.threads import SMALL, few_threads


def threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_small_products_have_one_thread_and_leave_the_others_as_they_were():
    np.eye(2) @ np.eye(2)
    before = threads()
    with few_threads(1000):
        assert threads() == {1}
    assert threads() == before
    with few_threads(SMALL + 1):
        assert threads() == before
