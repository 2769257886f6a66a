"""openssl s_client against both TLS ports: handshakes, certificates, protocols, a request by hand."""
import re
import shutil
import unittest

from lib.credentials import openssl
from lib.uccp import NodeTest


@unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
class Openssl(NodeTest):
    agent = False

    def client(self, port, *arguments, stdin=b""):
        context = self.node.context
        return openssl("s_client", "-connect", context[port], "-CAfile", context["ca"], *arguments, stdin=stdin,
                       check=False)

    def test_grpc_offers_http_2_and_rest_http_1(self):
        self.assertIn(b"ALPN protocol: h2", self.client("grpc", "-alpn", "h2").stdout)
        rest = self.client("https", "-alpn", "h2,http/1.1").stdout
        self.assertNotIn(b"ALPN protocol: h2", rest)

    def test_a_request_by_hand(self):
        request = (f"GET /api/v1/services HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.node.context['token']}\r\n"
                   "Connection: close\r\n\r\n").encode()
        answer = self.client("https", "-quiet", "-ign_eof", stdin=request).stdout
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer[:200])
        self.assertTrue(answer.rstrip().endswith(b"}"), answer[-100:])

    def test_a_client_certificate_is_asked_for_and_not_demanded(self):
        for port in ("https", "grpc"):
            with self.subTest(port):
                bare = self.client(port)
                self.assertIn(b"Acceptable client certificate CA names", bare.stdout)
                self.assertIn(b"Verify return code: 0 (ok)", bare.stdout)

    def test_a_request_with_a_client_certificate_only(self):
        context = self.node.context
        answer = self.client("https", "-quiet", "-ign_eof", "-cert", context["cert"], "-key", context["key"],
                             stdin=b"GET /api/v1/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").stdout
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer[:200])

    def test_keys_and_ciphers_are_of_today(self):
        for port in ("https", "grpc"):
            out = self.client(port).stdout.decode()
            self.assertRegex(out, r"Cipher is TLS_(AES_(128|256)_GCM|CHACHA20_POLY1305)_SHA(256|384)")
            self.assertRegex(out, r"(?i)Server Temp Key: (X25519|ECDH, prime256v1)")
            dates = openssl("x509", "-noout", "-checkend", str(7 * 24 * 3600),
                            stdin=re.search(r"-----BEGIN.*?END CERTIFICATE-----\n", out, re.S)[0].encode(), check=False)
            self.assertEqual(dates.returncode, 0, "the certificate ends within a week")

    def test_the_certificate_is_not_good_for_another_host(self):
        other = self.client("https", "-verify_hostname", "example.org", "-verify_return_error")
        self.assertNotEqual(other.returncode, 0)
        local = self.client("https", "-verify_hostname", "localhost", "-verify_return_error")
        self.assertEqual(local.returncode, 0)
