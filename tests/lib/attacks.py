"""What tests of hostile clients share: bytes sent to a port of a node as they are, and what must hold behind them."""
import pathlib
import socket
import ssl
import time

from lib.uccp import NodeTest


class RawAttack(NodeTest):
    """One node, whose door `door` gets bytes that no client library would send.

    Whatever a case did: behind it the server lives and answers another client at once (`answers_another`)."""

    agent = False
    door = None  # "https", "grpc", "etcd": as in the context file
    alpn = None
    # Far less than the server lets a client that does nothing wrong by the protocol take its time.
    CALM_S = 7
    HANDSHAKE_S = 30

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        host, _, port = cls.node.context[cls.door].rpartition(":")
        cls.address = (host, int(port))
        cls.tls = ssl.create_default_context(cafile=cls.node.context["ca"])
        if cls.alpn:
            cls.tls.set_alpn_protocols(cls.alpn)
        cls.token = cls.node.context["token"]

    def tearDown(self):
        self.assert_healthy()

    def answers_another(self):
        """Fails if a client that does nothing wrong gets no right answer."""
        raise NotImplementedError

    def assert_healthy(self):
        self.assertIsNone(self.node.process.poll(), self.node.errors()[-2000:])
        begun = time.monotonic()
        self.answers_another()
        self.assertLess(time.monotonic() - begun, self.CALM_S)

    def connect(self, first=b"", timeout=20):
        """A TLS connection on which `first` was sent. `timeout` is for what is sent and received from then on."""
        raw = socket.create_connection(self.address, timeout=self.HANDSHAKE_S)
        connection = self.tls.wrap_socket(raw, server_hostname="localhost")
        self.addCleanup(connection.close)
        if first:
            connection.sendall(first)
        connection.settimeout(timeout)
        return connection

    @staticmethod
    def send(connection, data):
        """Whether all was sent before the server had enough of it."""
        try:
            connection.sendall(data)
            return True
        except (OSError, ssl.SSLError):
            return False

    @staticmethod
    def rest_of(connection):
        """All that comes until the server closes."""
        out = b""
        try:
            while chunk := connection.recv(65536):
                out += chunk
        except (OSError, ssl.SSLError):
            pass
        return out

    def pour(self, connection, pieces):
        """Sends until all is sent or the server has had enough; answers how many pieces went."""
        count = 0
        for piece in pieces:
            if not self.send(connection, piece):
                break
            count += 1
        return count

    def memory_bytes(self):
        for line in pathlib.Path(f"/proc/{self.node.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")
