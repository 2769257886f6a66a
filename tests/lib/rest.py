"""A REST client of the tests: http.client and ssl, one connection kept alive, and readers of NDJSON and SSE streams."""
import base64
import http.client
import json
import ssl
import time
import urllib.parse
import uuid


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def reason(self):
        """The stable reason of a problem, or None."""
        if self.headers.get("Content-Type") != "application/problem+json":
            return None
        return self.json.get("reason")

    @property
    def fields(self):
        """The paths of the fields that a problem complains about."""
        return [field["field"] for field in self.json.get("fields", [])]

    def __repr__(self):
        return f"HTTP {self.status} {self.body[:2000]!r}"


class Stream:
    """Items of a server stream, each a dict; for SSE with the event's name and id beside it."""

    def __init__(self, connection, response, sse):
        self.connection = connection
        self.response = response
        self.sse = sse
        self.status = response.status
        self.headers = response.headers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        while True:
            item = self.next()
            if item is None:
                return
            yield item

    def next(self, timeout=20.0):
        """The next item, None at the end of the stream; TimeoutError when there is none for `timeout` seconds."""
        if self.connection.sock is not None:
            self.connection.sock.settimeout(timeout)
        return self._next_sse() if self.sse else self._next_line()

    def until(self, condition, timeout=20.0):
        """Items up to and with the first that fulfils `condition`."""
        items = []
        while True:
            item = self.next(timeout)
            assert item is not None, f"the stream ended too early: {items}"
            items.append(item)
            if condition(item):
                return items

    def _next_line(self):
        line = self.response.readline()
        return json.loads(line) if line else None

    def _next_sse(self):
        event = {}
        while True:
            line = self.response.readline().decode()
            if not line:
                return None
            line = line.rstrip("\n")
            if line == "" and "data" in event:
                item = json.loads(event["data"])
                item["_id"], item["_event"] = event.get("id"), event.get("event")
                return item
            if line == "":
                event = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value

    def close(self):
        self.response.close()
        self.connection.close()


class Rest:
    """Calls /api/v1 of one node, over one connection. Not for several threads at a time."""

    def __init__(self, address, ca, token=None, cert=None, key=None, timeout=60.0):
        self.address = address
        self.token = token
        self.timeout = timeout
        self.context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            self.context.load_cert_chain(cert, key)
        self.connection = None

    def connect(self, timeout=None):
        host, _, port = self.address.rpartition(":")
        return http.client.HTTPSConnection(host, int(port), context=self.context, timeout=timeout or self.timeout)

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _head(self, headers, has_body):
        head = {"Content-Type": "application/json"} if has_body else {}
        if self.token is not None:
            head["Authorization"] = f"Bearer {self.token}"
        head.update(headers or {})
        return head

    @staticmethod
    def _target(path, query):
        target = path if path.startswith("/") else "/api/v1/" + path
        return target + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")

    def call(self, method, path, body=None, query=None, headers=None):
        """One request; `body` is bytes, or a value that is sent as JSON. Raises OSError or HTTPException when the
        answer is lost: whether it was done is then not known."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if self.connection is None:
            self.connection = self.connect()
        try:
            self.connection.request(method, self._target(path, query), data, self._head(headers, data is not None))
            response = self.connection.getresponse()
            answer = Response(response.status, response.headers, response.read())
        except BaseException:
            self.close()
            raise
        if response.will_close:
            self.close()
        return answer

    def get(self, path, **query):
        return self.call("GET", path, query=query)

    def post(self, path, body=None, query=None, headers=None):
        return self.call("POST", path, body if body is not None else {}, query, headers)

    def put(self, path, body=None, query=None, headers=None):
        return self.call("PUT", path, body, query, headers)

    def delete(self, path, query=None, headers=None):
        return self.call("DELETE", path, query=query, headers=headers)

    def stream(self, path, sse=False, query=None, headers=None, body=None):
        """Opens a server stream on a connection of its own: GET, or POST with a body that is sent as JSON."""
        connection = self.connect()
        head = {"Accept": "text/event-stream" if sse else "application/x-ndjson", **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if data is None else "POST", self._target(path, query), data,
                           headers=self._head(head, data is not None))
        return Stream(connection, connection.getresponse(), sse)


class PatientRest(Rest):
    """One whose calls are repeated, changes with a request id, until a node has said what came of them: on a busy machine a
    leader may change by itself."""

    PATIENCE_S = 45

    def call(self, method, path, body=None, query=None, headers=None):
        if method != "GET":
            headers = {"Idempotency-Key": uuid.uuid4().hex, **(headers or {})}
        end = time.monotonic() + self.PATIENCE_S
        while True:
            try:
                answer = super().call(method, path, body, query, headers)
                if answer.status not in (502, 503, 504) or time.monotonic() > end:
                    return answer
            except (OSError, http.client.HTTPException):
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)  # the pace of asking


def text_of(line):
    """The bytes of a log line."""
    return base64.b64decode(line["base64"]) if "base64" in line else line.get("text", "").encode()
