"""Waiting on conditions. Tests never sleep for a fixed time."""
import time

STEP_S = 0.02


def wait_until(condition, timeout=20.0, what="the condition"):
    """Answers the first true value of `condition()`; AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {timeout:g} s; last seen: {value!r}")
        time.sleep(STEP_S)
