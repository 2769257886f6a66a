#!/usr/bin/env python3
"""Runs tasks of /bin/true on HyperQueue (PyPI: hyperqueue) with one server and one worker on this machine, and prints
what was measured as one JSON object: bench/hyperqueue_rate.py COUNT SAMPLES

Submitted at once, output not kept, no limits: as little for each task as HyperQueue can do.
"""
import importlib.metadata
import json
import os
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main():
    count, samples = int(sys.argv[1]), int(sys.argv[2])
    rates = []
    with tempfile.TemporaryDirectory(prefix="uccp-bench-") as folder:
        os.chdir(folder)
        with LocalCluster(server_dir=f"{folder}/server") as cluster:
            # As many tasks at a time as keep the cores busy.
            cluster.start_worker(WorkerConfig(cores=4 * os.cpu_count()))
            client = cluster.client()
            for _ in range(samples):
                job = Job()
                for _ in range(count):
                    job.program(["/bin/true"], stdout=None, stderr=None)
                begin = time.monotonic()
                submitted = client.submit(job)
                if not client.wait_for_jobs([submitted]):
                    sys.exit("not all tasks ended well")
                rates.append(count / (time.monotonic() - begin))
    print(json.dumps({"version": importlib.metadata.version("hyperqueue"), "rates": rates}))


if __name__ == "__main__":
    main()
