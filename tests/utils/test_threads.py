"""Parts of the work run at the same time, each with operations of one thread."""

import threading

import pytest
import torch

from dietnerf_ns.utils.threads import in_parts


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def two_threads(set_threads):
    set_threads(2)


@pytest.mark.parametrize(("threads", "at_once", "of_each"), [(2, 2, 1), (3, 3, 1), (9, 4, 2)])
def test_parts_run_at_the_same_time_share_the_threads_and_return_in_order(set_threads, threads, at_once, of_each):
    set_threads(threads)
    together = threading.Barrier(at_once, timeout=30)

    def work(part):
        together.wait()
        return part, torch.get_num_threads()

    assert in_parts(work, range(3 * at_once)) == [(part, of_each) for part in range(3 * at_once)]
    assert torch.get_num_threads() == threads


def test_a_thread_that_starts_afterwards_has_all_threads(two_threads):
    in_parts(abs, [1, 2])
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


def test_with_one_thread_the_caller_works_alone(set_threads):
    set_threads(1)
    assert set(in_parts(lambda part: threading.current_thread(), [0, 1])) == {threading.current_thread()}


def test_an_error_ends_the_work_and_leaves_the_number_of_threads(two_threads):
    begun = []

    def fail(part):
        begun.append(part)
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        in_parts(fail, range(10_000))
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 2
