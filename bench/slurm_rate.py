#!/usr/bin/env python3
"""Runs tasks of /bin/true on Slurm (Debian: slurmctld, slurmd, slurm-client, munge) with one controller and one node on
this machine, and prints what was measured as one JSON object: bench/slurm_rate.py COUNT SAMPLES

As root. One job array, output not kept, no accounting, no control groups: as little for each task as Slurm can do.
"""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

CONFIG = """ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters={parameters}
MaxArraySize={size}
MaxJobCount={size}
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


# As soon and as many at a time as it can.
PARAMETERS = ("default_queue_depth=10000,sched_min_interval=0,sched_interval=1,batch_sched_delay=0,"
              "max_array_tasks={count}")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"it did not happen: {what}")
        time.sleep(0.02)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, env=os.environ).stdout


def main():
    count, samples = int(sys.argv[1]), int(sys.argv[2])
    host = socket.gethostname().split(".")[0]
    children, rates = [], []
    folder = pathlib.Path(tempfile.mkdtemp(prefix="uccp-bench-"))
    folder.chmod(0o755)
    try:
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        config = folder / "slurm.conf"
        config.write_text(CONFIG.format(host=host, ports=free_ports(2), folder=folder, size=max(10_000, 2 * count),
                                        parameters=PARAMETERS.format(count=count), cpus=os.cpu_count()))
        os.environ["SLURM_CONF"] = str(config)
        children.append(subprocess.Popen(["munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
                                          f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
                                          f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
                                         stderr=subprocess.DEVNULL))
        wait((folder / "munge.socket").exists, 10, "munged to listen")
        children.append(subprocess.Popen(["slurmctld", "-D", "-f", str(config)], stderr=subprocess.DEVNULL))
        children.append(subprocess.Popen(["slurmd", "-D", "-f", str(config)], stderr=subprocess.DEVNULL))
        wait(lambda: "idle" in output("sinfo", "-h", "-o", "%t"), 60, "the node to be idle")
        for _ in range(samples):
            begin = time.monotonic()
            subprocess.run(["sbatch", "-Q", f"--array=1-{count}", "-n1", "-o", "/dev/null", "--wrap", "/bin/true"],
                           check=True, env=os.environ)
            wait(lambda: output("squeue", "-h", "-o", "%i").strip() == "", 300, "the array to end")
            rates.append(count / (time.monotonic() - begin))
        version = output("sinfo", "--version").split()[-1]
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"version": version, "rates": rates}))


if __name__ == "__main__":
    main()
