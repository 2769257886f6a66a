"""Networks that break: every node in a network namespace of its own, joined by a bridge, with rules that drop packets.

Needs root, and the programs ip, nft and nsenter. Everything lives in namespaces of the test's own process and ends with
it: no name, address or rule of the machine is touched.
"""
import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import unittest

RELAY = pathlib.Path(__file__).with_name("relay.py")
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
HUB = "10.77.0.254"


def run(*command, stdin=None):
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def leave_the_machine():
    """Gives this process, and what it starts from now on, mounts and a network of their own. SkipTest if it may not.

    Call it from the main thread before other threads are started: threads have the namespaces of their maker. Once is
    enough, more do no harm."""
    missing = [name for name in ("ip", "nft", "nsenter", "mount") if shutil.which(name) is None]
    if missing:
        raise unittest.SkipTest(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise unittest.SkipTest("network namespaces and packet filters need root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise unittest.SkipTest(f"no namespaces here: {os.strerror(ctypes.get_errno())}")
    run("mount", "--make-rprivate", "/")
    run("ip", "link", "set", "lo", "up")


class Network:
    """A bridge at 10.77.0.254 and one namespace a host; the test's process is at the bridge and reaches every host."""

    def __init__(self):
        run("ip", "link", "add", "hub", "type", "bridge")
        run("ip", "addr", "add", f"{HUB}/24", "dev", "hub")
        run("ip", "link", "set", "hub", "up")
        self.hosts = {}
        self.relays = {}

    def add(self, name):
        """Makes a host and answers its address."""
        number = len(self.hosts) + 1
        handle = self._new_namespace()
        self.hosts[name] = (f"10.77.0.{number}", handle)
        run("ip", "link", "add", f"hub{number}", "type", "veth", "peer", "name", "eth0", "netns", self._path(name))
        run("ip", "link", "set", f"hub{number}", "master", "hub", "up")
        self.inside(name, "ip", "link", "set", "lo", "up")
        # Away from the ports of servers: an outgoing connection may take one while its server is down.
        self.inside(name, "sh", "-c", "echo 33000 49999 > /proc/sys/net/ipv4/ip_local_port_range")
        self.inside(name, "ip", "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        self.inside(name, "ip", "link", "set", "eth0", "up")
        self._rules(name, "add table ip faults\n"
                          "add chain ip faults in { type filter hook input priority 0; }\n"
                          "add chain ip faults out { type filter hook output priority 0; }\n")
        return self.address(name)

    @staticmethod
    def _new_namespace():
        """A descriptor that keeps a new namespace alive. A thread of its own makes it: ours stays where it is."""
        handle = []

        def make():
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0:
                handle.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return handle[0]

    def address(self, name):
        return self.hosts[name][0]

    def _path(self, name):
        return f"/proc/{os.getpid()}/fd/{self.hosts[name][1]}"

    def enter(self, name):
        """The words before a command that is to run on a host."""
        return ["nsenter", f"--net={self._path(name)}"]

    def inside(self, name, *command, stdin=None):
        return run(*self.enter(name), *command, stdin=stdin)

    def _rules(self, name, text):
        self.inside(name, "nft", "-f", "-", stdin=text)

    # --- faults; what they do ends with heal() ---

    def cut(self, source, target):
        """Nothing that `source` sends reaches `target`; the other way stays open."""
        self._rules(target, f"add rule ip faults in ip saddr {self.address(source)} drop\n")

    def isolate(self, name):
        """Cuts a host off from the other hosts, both ways. The test still reaches it."""
        for other in self.hosts:
            if other != name:
                self.cut(name, other)
                self.cut(other, name)

    def lose(self, percent):
        """Drops packets between hosts at random."""
        for name in self.hosts:
            self._rules(name, f"add rule ip faults in ip saddr != {HUB} numgen random mod 100 < {percent} drop\n")

    def heal(self):
        for name in self.hosts:
            self._rules(name, "flush table ip faults\n")
        for relay in self.relays.values():
            relay.set_delay(0)

    def add_relay(self, target, port):
        """Leads what all other hosts send to a port of `target` through a relay, which may be told to be slow. Only
        connections made from now on."""
        relay = Relay(self.address(target), port)
        self.relays[target] = relay
        for name in self.hosts:
            if name != target:
                self._rules(name, "add table ip detour\n"
                                  "add chain ip detour out { type nat hook output priority -100; }\n"
                                  f"add rule ip detour out ip daddr {self.address(target)} tcp dport {port} "
                                  f"dnat to {HUB}:{relay.port}\n")

    def delay(self, milliseconds):
        """Everything that goes through relays takes so long, one way."""
        for relay in self.relays.values():
            relay.set_delay(milliseconds)

    def close(self):
        for relay in self.relays.values():
            relay.close()
        for _, handle in self.hosts.values():
            os.close(handle)
        for number in range(1, len(self.hosts) + 1):
            subprocess.run(["ip", "link", "del", f"hub{number}"], capture_output=True, check=False)
        run("ip", "link", "del", "hub")


class Relay:
    """A process that passes on TCP connections, later than they come if told so."""

    def __init__(self, host, port):
        self.process = subprocess.Popen([sys.executable, str(RELAY), HUB, host, str(port)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def set_delay(self, milliseconds):
        self.process.stdin.write(f"{milliseconds}\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()
