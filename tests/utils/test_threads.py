"""Parts of the work run at the same time, each with operations of one thread."""

import threading

import pytest
import torch

from dietnerf_ns.utils.threads import in_parts


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_run_at_the_same_time_with_one_thread_each_and_return_in_order(two_threads):
    both = threading.Barrier(2, timeout=30)

    def work(part):
        both.wait()
        return part, torch.get_num_threads()

    assert in_parts(work, [0, 1, 2, 3]) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert torch.get_num_threads() == 2


def test_a_thread_that_starts_afterwards_has_all_threads(two_threads):
    in_parts(abs, [1, 2])
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


def test_with_one_thread_the_caller_works_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        workers = in_parts(lambda part: threading.current_thread(), [0, 1])
    finally:
        torch.set_num_threads(before)
    assert set(workers) == {threading.current_thread()}


def test_an_error_ends_the_work_and_leaves_the_number_of_threads(two_threads):
    begun = []

    def fail(part):
        begun.append(part)
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        in_parts(fail, range(10_000))
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 2
