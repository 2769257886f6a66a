"""What nodes say to each other, made by hand: TLS connections to a raft port, and frames that are right or wrong.

docs/formats/peer_frame.md is the format."""
import contextlib
import socket
import ssl
import struct

CONTROL, BULK, HELLO = 0, 1, 2
MORE = 1
VERSION = 1
PIECE_BYTES_MAX = 64 << 10


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def piece(kind, payload, flags=0, version=VERSION, length=None, checksum=None):
    head = struct.pack(">BBBBI", version, kind, flags, 0, len(payload) if length is None else length)
    return head + struct.pack(">I", crc32c(head + payload) if checksum is None else checksum) + payload


def hello(cluster_id, sender, receiver, incarnation, version=1):
    name = cluster_id.encode()
    assert len(name) < 128  # its length is one byte then
    return piece(HELLO, bytes([version, len(name)]) + name + struct.pack(">QQQ", sender, receiver, incarnation))


def incarnation_of(data_directory):
    """The random number of a data directory: the last field of its file `identity`, before the checksum."""
    return struct.unpack(">Q", (data_directory / "identity").read_bytes()[-12:-4])[0]


def plain_connection(address, timeout=30):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout)


class Peer:
    """A connection to the raft port of a node, with the certificate in `pki` or none."""

    def __init__(self, address, pki=None, ca=None, tls12=False, timeout=30):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
        if ca:
            context.load_verify_locations(ca)
        if tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if pki is not None:
            context.load_cert_chain(pki / "node.crt", pki / "node.key")
        self.socket = context.wrap_socket(plain_connection(address, timeout))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """False if the node has closed the connection."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def closed(self):
        """Waits until the node closes the connection, and answers what it sent before; TimeoutError if it does not."""
        got = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := self.socket.recv(65536):
                got += data
        return got
