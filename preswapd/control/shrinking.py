"""A shrink that goes on in a thread while its client is told about it."""

import threading

from preswapd.api.messages import ShrinkProgress, ShrinkResult
from preswapd.preswap.instance import Instance


class ShrinkThread:
    """Runs Instance.shrink; `ended` is set when there is a result or an error."""

    def __init__(self, instance: Instance, pages: int, device: str | None) -> None:
        self.instance = instance
        self.pages = pages
        self.device = device
        self.progress = ShrinkProgress(0, instance.pages_in_tmem(device), pages)
        self.result: ShrinkResult | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()
        self.cancelled = threading.Event()
        self.thread = threading.Thread(target=self._run, name="shrink", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def cancel(self) -> None:
        self.cancelled.set()

    def _run(self) -> None:
        try:
            self.result = self.instance.shrink(
                self.pages,
                self.device,
                progress=self._note,
                cancelled=self.cancelled.is_set,
            )
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()

    def _note(self, progress: ShrinkProgress) -> None:
        self.progress = progress
