# full
# timeout: 1800
# labels: cluster
"""As test_cluster_faults, each list of faults many times over."""
import os

os.environ.setdefault("UCCP_FAULT_ROUNDS", "15")
from test_cluster_faults import *  # noqa: E402,F401,F403
