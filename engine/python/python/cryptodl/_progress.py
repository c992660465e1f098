"""How far a long call is."""

import sys
from collections.abc import Callable
from types import TracebackType

Callback = Callable[[int, int], object]
Progress = bool | Callback


class reported:
    """`with reported(progress, title) as callback`: what a long call is to tell, or None.

    `progress` is `f(done, total)`, or True for a bar where tqdm is installed and standard error is
    a terminal, or False.
    """

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress, self._title = progress, title
        self._close: Callable[[], object] = lambda: None

    def __enter__(self) -> Callback | None:
        if not isinstance(self._progress, bool):
            return self._progress
        if not self._progress or not sys.stderr.isatty():
            return None
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return None
        bar = tqdm(desc=self._title, leave=False)
        self._close = bar.close

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
