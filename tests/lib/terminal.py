"""Programs with a terminal, as somebody sits in front of it."""
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time


class Terminal:
    """A program on a pseudo-terminal. `errors_only`: its standard output is thrown away, the terminal has its errors."""

    def __init__(self, command, environment, cwd, errors_only=False):
        self.seen = b""
        self.end, other = pty.openpty()
        self.process = subprocess.Popen([str(word) for word in command], stdin=other, stdout=subprocess.DEVNULL if errors_only else other,
                                        stderr=other, env={"TERM": "xterm", **environment}, cwd=cwd, start_new_session=True,
                                        # It is the terminal of the session, so that Control-C reaches the program.
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(other)

    def type(self, keys):
        os.write(self.end, keys)

    def read(self, timeout):
        """What is there, waiting for it for at most `timeout`; empty: nothing came, or the program ended."""
        if not select.select([self.end], [], [], timeout)[0]:
            return b""
        try:
            part = os.read(self.end, 65536)
        except OSError:
            return b""
        self.seen += part
        return part

    def until(self, awaited, timeout=30):
        """Reads until `awaited` is in what came since the last call, and answers that."""
        end, start = time.monotonic() + timeout, len(self.seen)
        while awaited not in self.seen[start:]:
            left = end - time.monotonic()
            assert left > 0, (awaited, self.seen[start:])
            if not self.read(left):
                assert self.process.poll() is None, (awaited, self.seen[start:])
        return self.seen[start:]

    def rest(self, timeout=60):
        """All that comes until the program ends, and its exit code."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen
            self.read(0.1)
        while self.read(0):
            pass
        return self.seen, self.process.returncode

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.end)
