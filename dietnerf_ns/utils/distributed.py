"""The processes of one run, one for each GPU, as nerfstudio's launcher starts them. In a run of one nothing happens.

All processes have the same weights, draw different pixels and views, and take steps along the mean of their gradients.
This is not done by torch's DistributedDataParallel: it averages inside a backward pass, but the limit on the semantic
gradient needs the means of both gradients before they are added; and it does not follow models such as TensoRF, which
replace their parameters while they train.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import torch
from nerfstudio.utils import comms
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessExitedException

from dietnerf_ns.utils.errors import UserError

SECONDS_FOR_MAIN_PROCESS = 5.0
"""What ends one process ends mostly all of them. The main process may say so first, and the launcher ends the rest."""


def is_one_of_several() -> bool:
    """Whether this process trains together with others."""
    return comms.get_world_size() > 1


def draw_number(step: int) -> int:
    """The step's number for random draws, which no other step and no other process of the run has."""
    return step * comms.get_world_size() + comms.get_rank()


def average_scalars(*values: Tensor) -> list[Tensor]:
    """The mean of each value over the processes, equal in all of them.

    Args:
        values: scalars of one dtype on this process's device.
    """
    if not is_one_of_several():
        return list(values)
    total = torch.stack(values).detach()
    distributed.all_reduce(total)
    return list(total / comms.get_world_size())


def average(tensors: Sequence[Tensor | None], *, like: Sequence[Tensor]) -> list[Tensor | None]:
    """The mean of each tensor over the processes, equal in all of them.

    Args:
        tensors: of this process; one that is None counts as zeros.
        like: tensors of the same shapes, dtypes and device.

    Returns:
        The means; None for what is None in all processes.
    """
    processes = comms.get_world_size()
    if processes == 1 or not tensors:
        return list(tensors)
    parts = [torch.zeros_like(shape) if one is None else one for one, shape in zip(tensors, like, strict=True)]
    given = torch.tensor([one is not None for one in tensors], dtype=torch.float32, device=like[0].device)
    joined = torch.cat([given, *(part.detach().reshape(-1) for part in parts)])
    distributed.all_reduce(joined)
    given, *totals = joined.split([len(given), *(part.numel() for part in parts)])
    means = [(total / processes).view_as(shape).to(shape.dtype) for total, shape in zip(totals, like, strict=True)]
    return [mean if number else None for mean, number in zip(means, given.tolist(), strict=True)]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give parameters the mean of their gradients over the processes."""
    if is_one_of_several():
        means = average([parameter.grad for parameter in parameters], like=parameters)
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean


def maximum(number: int, device: torch.device | str) -> int:
    """The largest of the numbers that the processes give.

    Args:
        number: of this process.
        device: this process's; NCCL can send only from GPUs.
    """
    if not is_one_of_several():
        return number
    largest = torch.tensor(number, device=device)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest)


def copy_from_main_process(module: nn.Module) -> None:
    """Give a module's parameters and buffers the main process's values."""
    if is_one_of_several():
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            values = tensor.data.contiguous()  # as collectives ask for
            distributed.broadcast(values, src=0)
            tensor.data.copy_(values)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Inside, the first process of each machine is alone. What it downloads, the others find in the cache."""
    others_wait = comms.get_local_rank() != 0
    if others_wait:
        _wait_for_this_machine()
    yield
    if not others_wait and is_one_of_several():
        _wait_for_this_machine()


def _wait_for_this_machine() -> None:
    distributed.barrier(group=comms.LOCAL_PROCESS_GROUP)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Let a process of several end with a `UserError`'s message, which the launcher would print as a traceback.

    Raises:
        SystemExit: in place of the error.
    """
    try:
        yield
    except UserError as error:
        if not is_one_of_several():
            raise
        if not comms.is_main_process():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(SECONDS_FOR_MAIN_PROCESS)
        raise SystemExit(str(error)) from None


def wait_for_all() -> None:
    """Return when all processes have come here. One that has ended is not waited for."""
    if is_one_of_several():
        with contextlib.suppress(RuntimeError):
            distributed.barrier()


def prepare_launcher() -> None:
    """Let nerfstudio's launcher end as its processes do, which end at signals by themselves and say why.

    It would end with status 0 after Ctrl-C, and at SIGTERM at once, with its processes.
    """
    _hide_traceback_of_launcher()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, _end_after_processes)


def _end_after_processes(number: int, _frame: FrameType | None) -> None:
    processes = multiprocessing.active_children()

    def kill_all(*_: object) -> None:
        for process in processes:
            process.kill()

    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, kill_all)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
    statuses = {process.exitcode for process in processes}
    if statuses == {0}:  # the viewer was left
        sys.exit(0)
    sys.exit(1 if 1 in statuses else 128 + number)


def _hide_traceback_of_launcher() -> None:
    show = sys.excepthook

    def show_others(kind: type[BaseException], error: BaseException, traceback) -> None:
        if not issubclass(kind, ProcessExitedException):
            show(kind, error, traceback)

    sys.excepthook = show_others
