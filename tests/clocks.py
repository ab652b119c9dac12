"""A clock that tests own: waiting moves it, nothing sleeps."""

import threading


class FakeClock:
    def __init__(self, start: float = 1000.0) -> None:
        self.time = start

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, wake: threading.Event) -> bool:
        self.time += max(0.0, seconds)
        return wake.is_set()
