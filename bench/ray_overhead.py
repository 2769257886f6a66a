#!/usr/bin/env python3
"""The same jobs by a bare driver of Ray and through UCCP on Ray, on one cluster of this machine's cores, by turns.

    bench/ray_overhead.py PAIRS SECONDS

Prints one JSON object: for each row the samples of both. Every value is checked. Needs build/venv (tools/python) for
ours, and build/venv-ray (tools/ray) for Ray.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
CORES = os.cpu_count() or 1
CALLS = 500  # at a time
TASKS = 16 * CORES
JOBS = {"short_s": 200_000, "long_s": 1_000_000}  # rounds of each task: some 10 and 50 ms


def same(value):
    return value


def work(rounds):
    total = 0
    for number in range(rounds):
        total += number & 7
    return total


def measured(get, call, long_call, seconds):
    """Calls a second that do nothing, and the seconds of jobs of tasks that compute."""
    get([call(0) for _ in range(CALLS)])  # what starts by and by is there now
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        if get([call(number) for number in range(CALLS)]) != list(range(CALLS)):
            sys.exit("wrong values came back")
        done += CALLS
    rate = done / (time.perf_counter() - began)
    found = {"calls": rate, "checked": done + TASKS * len(JOBS)}
    get([long_call(1) for _ in range(TASKS)])
    for name, rounds in JOBS.items():
        began = time.perf_counter()
        values = get([long_call(rounds) for _ in range(TASKS)])
        found[name] = time.perf_counter() - began
        if values != [work(rounds)] * TASKS:
            sys.exit("wrong values came back")
    return found


def bare(address, seconds):
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="error")
    function = ray.remote(num_cpus=0.5, max_retries=0)(same)
    long_function = ray.remote(num_cpus=1, max_retries=0)(work)
    found = {"version": ray.__version__, **measured(ray.get, function.remote, long_function.remote, seconds)}
    ray.shutdown()
    return found


def ours(context, seconds):
    import uccp

    uccp.init(context_file=context)
    function = uccp.remote(cpu=0.5, memory="64Mi", durable=False, lanes=CORES)(same)
    long_function = uccp.remote(cpu=1, memory="64Mi")(work)
    found = measured(uccp.get, function.remote, long_function.remote, seconds)
    uccp.shutdown()
    return found


def sample(python, kind, where, seconds, environment):
    done = subprocess.run([str(python), __file__, kind, str(where), str(seconds)], capture_output=True, text=True,
                          env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{kind}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if sys.argv[1] in ("bare", "ours"):
        print(json.dumps({"bare": bare, "ours": ours}[sys.argv[1]](sys.argv[2], float(sys.argv[3]))))
        return
    from lib import ray as cluster_of
    from lib.uccp import Node

    pairs, seconds = int(sys.argv[1]), float(sys.argv[2])
    cluster = cluster_of.Cluster(cpus=CORES)
    node = Node(environment=cluster_of.agent_environment(cluster.address))
    samples = {"ours": [], "bare": []}
    try:
        node.start()
        node.wait_worker()
        for _ in range(pairs):
            python = ROOT / "build" / "venv" / "bin" / "python3"
            samples["ours"].append(sample(python, "ours", node.context_file, seconds, {}))
            samples["bare"].append(sample(cluster_of.PYTHON, "bare", cluster.address, seconds, cluster_of.ACCESS))
    finally:
        node.close()
        cluster.close()
    print(json.dumps({"ray": samples["bare"][0]["version"], **samples}))


if __name__ == "__main__":
    main()
