"""Holding forwards to a stated time, so that one machine can stand in for others in a benchmark.

A 7B target on a data-centre GPU takes some 45 ms a step, a phone's draft 10 ms a token. Figures
made so are called paced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def pace(
    forward: Callable[..., Any],
    seconds: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Callable[..., Any]:
    """``forward``, each call of which takes ``seconds`` by ``clock``, or longer if it is slower.

    A target's step takes as long whatever its size, so a batch shares it.
    """

    @functools.wraps(forward)
    def paced(*args: Any, **options: Any) -> Any:
        due_s = clock() + seconds
        result = forward(*args, **options)
        sleep(max(0.0, due_s - clock()))
        return result

    return paced
