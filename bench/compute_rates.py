#!/usr/bin/env python3
"""Calls of functions and actors a second, on UCCP or on Ray, with the same code for both; prints one JSON object.

    bench/compute_rates.py uccp CONTEXT_FILE SECONDS
    bench/compute_rates.py ray - SECONDS        (PyPI: ray), a cluster of this machine's cores that it starts itself

Each row is what Ray's own microbenchmark calls it: one call after the other, and 1,000 calls at a time; gets and puts
of 1 KB; puts of 100 MB, and memcpy beside them. Every value is checked. Calls of UCCP are not durable, as those of Ray
are not.
"""
import ctypes
import json
import os
import sys
import time

BATCH = 1000
CORES = os.cpu_count() or 1


class Uccp:
    def __init__(self, context):
        import uccp

        self.api, self.version = uccp, uccp.__version__
        uccp.init(context_file=context)
        self.function = uccp.remote(cpu=CORES / 4, memory="128Mi", durable=False, lanes=2)(same)
        self.actor = uccp.remote(cpu=CORES / 4, memory="128Mi")(Same).remote()

    def close(self):
        self.api.kill(self.actor)
        self.api.shutdown()


class Ray:
    def __init__(self, _):
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self.api, self.version = ray, ray.__version__
        ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="error",
                 object_store_memory=512 << 20)
        self.function = ray.remote(same)
        self.actor = ray.remote(Same).remote()

    def close(self):
        self.api.shutdown()


def same(value):
    return value


class Same:
    def same(self, value):
        return value


def one_by_one(get, call, seconds):
    """Calls a second, and the time of the median call in milliseconds."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        value = len(times)
        if get(call(value)) != value:
            sys.exit("a wrong value came back")
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2] * 1e3, len(times)


def at_a_time(get, call, seconds):
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        if get([call(value) for value in range(BATCH)]) != list(range(BATCH)):
            sys.exit("wrong values came back")
        done += BATCH
    return done / (time.perf_counter() - began), done


def objects(api, seconds):
    """Gets and puts a second, and gigabytes a second of large ones beside copying by itself."""
    small, large = b"s" * 1024, os.urandom(1 << 20) * 96
    rows, checked = {}, 0
    # Memory that nothing has used yet comes first.
    began = time.perf_counter()
    ref = api.put(large)
    rows["put_100mb_cold"] = len(large) / 1e9 / (time.perf_counter() - began)
    if api.get(ref) != large:
        sys.exit("a wrong value came back")
    del ref
    target = ctypes.create_string_buffer(len(large))
    puts, copies = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(puts) < 3:
        began = time.perf_counter()
        ref = api.put(large)
        puts.append(time.perf_counter() - began)
        del ref
        began = time.perf_counter()
        ctypes.memmove(target, large, len(large))
        copies.append(time.perf_counter() - began)
    rows["put_100mb"] = rows["put_100mb_warm"] = len(large) / 1e9 / sorted(puts)[len(puts) // 2]
    rows["memcpy_100mb"] = len(large) / 1e9 / sorted(copies)[len(copies) // 2]
    ref, done = api.put(small), 0
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        for _ in range(100):
            if api.get(ref) != small:
                sys.exit("a wrong value came back")
        done += 100
    rows["get_1kb"] = done / (time.perf_counter() - began)
    checked += done
    refs, done, began = [], 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        refs = [api.put(small) for _ in range(100)]
        done += 100
    rows["put_1kb"] = done / (time.perf_counter() - began)
    if api.get(refs) != [small] * 100:
        sys.exit("wrong values came back")
    return rows, checked + 101


def main():
    name, context, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    system = {"uccp": Uccp, "ray": Ray}[name](context)
    get = system.api.get
    rows, checked = objects(system.api, seconds)
    for label, call in (("functions", system.function.remote), ("actor", system.actor.same.remote)):
        at_a_time(get, call, seconds / 2)  # what starts by and by is there now
        for row, measure in (("sync_ms", one_by_one), ("async", at_a_time)):
            rows[f"{label}_{row}"], count = measure(get, call, seconds)
            checked += count
    system.close()
    print(json.dumps({"version": system.version, "rows": rows, "checked": checked}))


if __name__ == "__main__":
    main()
