"""Makes access tokens and client certificates with the openssl program, good ones and bad ones."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import tempfile
import time


def openssl(*arguments, check=True, stdin=b"", timeout=30):
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"openssl {' '.join(map(str, arguments))} failed: {done.stderr.decode()}")
    return done


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_id_of(key):
    """The `kid` of an Ed25519 private key: the first half of the SHA-256 of its public half."""
    der = openssl("pkey", "-in", key, "-pubout", "-outform", "DER").stdout
    return b64url(hashlib.sha256(der[-32:]).digest()[:16])


def claims(**changes):
    now = int(time.time())
    all_claims = {"iss": "uccp", "aud": "uccp", "sub": "tester", "tenant": "default", "roles": ["admin"],
                  "iat": now - 5, "exp": now + 600, **changes}
    return {name: value for name, value in all_claims.items() if value is not None}


def sign_ed25519(key, message):
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        return openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file.name).stdout


def assemble(header, payload, sign):
    """A token of any header and payload; `sign(bytes)` makes the third part."""
    message = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(payload).encode())}"
    return f"{message}.{b64url(sign(message.encode()))}"


def token(key, header=None, **changes):
    """A token signed with the Ed25519 private key in the file `key`."""
    head = {"alg": "EdDSA", "typ": "JWT", "kid": key_id_of(key), **(header or {})}
    return assemble(head, claims(**changes), lambda message: sign_ed25519(key, message))


def hs256_token(secret, key_id, **changes):
    head = {"alg": "HS256", "typ": "JWT", "kid": key_id}
    return assemble(head, claims(**changes), lambda message: hmac.new(secret, message, hashlib.sha256).digest())


def unsigned_token(key_id, algorithm="none", **changes):
    return assemble({"alg": algorithm, "typ": "JWT", "kid": key_id}, claims(**changes), lambda message: b"")


def public_key_pem(key):
    return openssl("pkey", "-in", key, "-pubout").stdout


def new_ed25519(path):
    openssl("genpkey", "-algorithm", "ED25519", "-out", path)
    return path


def new_authority(folder, name="another CA"):
    """A certificate authority of its own: paths of its certificate and key."""
    folder = pathlib.Path(folder)
    cert, key = folder / "other-ca.crt", folder / "other-ca.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            f"/CN={name}", "-keyout", key, "-out", cert)
    return cert, key


def client_certificate(folder, name, ca, ca_key, organization=None, tenant="default", days=2, usage="clientAuth",
                       uri=None, serial=None):
    """A client certificate issued by `ca`: paths of the certificate and its key. `serial`: a number, random if none is given."""
    folder = pathlib.Path(folder)
    cert, key, request, extensions = (folder / f"{name}.{end}" for end in ("crt", "key", "csr", "ext"))
    subject = f"/CN={name}" + (f"/O={organization}" if organization else "")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout",
            key, "-out", request)
    uri = uri if uri is not None else f"spiffe://uccp/tenant/{tenant}/principal/{name}"
    extensions.write_text("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                          f"extendedKeyUsage={usage}\n" + (f"subjectAltName=URI:{uri}\n" if uri else ""))
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-set_serial",
            str(serial or int.from_bytes(os.urandom(8), "big")), "-days", str(days), "-extfile", extensions, "-out", cert)
    return cert, key
