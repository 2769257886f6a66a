# full
# serial
# timeout: 1200
# labels: kill9
"""The rule of test_kill9.py over 200 kills."""
import os

os.environ.setdefault("UCCP_KILL_ROUNDS", "200")

from test_kill9 import KillNine  # noqa: E402,F401
