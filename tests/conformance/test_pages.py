# SPDX-License-Identifier: Apache-2.0
"""The server's pages in a real browser."""

import base64
import hashlib
import http.server
import json
import queue
import subprocess
import threading
import urllib.parse

import pytest
import requests

from browser import Browser
from server import PROGRAM

PASSWORD = "correct horse battery"
METHODS = {"get", "head", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def documentation(server, browser):
    """The documentation page, loaded. At the end, nothing in it may have gone wrong."""
    page = browser.page(server.url + "/docs")
    page.wait("document.querySelectorAll('.op').length > 0")
    yield page
    page.run("0")
    assert page.problems == []
    page.close()


def operations(server):
    document = requests.get(server.url + "/openapi.json", timeout=30).json()
    paths = document["paths"].values()
    return document, [item[method] for item in paths for method in item if method in METHODS]


def opened(page, operation):
    """Opens an operation; returns the selector of its inside."""
    page.run("document.getElementById('%s').open = true" % operation)
    inside = "#%s > .inside" % operation
    page.wait("document.querySelector('%s') !== null" % inside)
    return inside


def sent(page, inside):
    """Sends the request; returns the output when the response is whole."""
    page.run("document.querySelector('%s > .row > button').click()" % inside)
    buttons = "[...document.querySelectorAll('%s > .row > button')]" % inside
    page.wait("%s.find(button => button.textContent === 'Stop').hidden" % buttons)
    return page.text(inside + " > pre[role=status]")


def test_the_documentation_shows_every_operation(server, documentation):
    document, expected = operations(server)
    shown = documentation.run("[...document.querySelectorAll('.op')].map(operation => operation.id)")
    assert len(shown) == len(expected) and set(shown) == {operation["operationId"] for operation in expected}
    links = documentation.run("[...document.querySelectorAll('nav a')].map(link => link.getAttribute('href'))")
    assert sorted(links) == sorted("#" + operation for operation in shown)
    assert documentation.text("#version") == "%s · OpenAPI %s" % (document["info"]["version"], document["openapi"])
    for operation in expected:
        inside = opened(documentation, operation["operationId"])
        assert documentation.text(inside + " > pre").startswith("curl ")
        replies = documentation.run("[...document.querySelectorAll('%s > .reply > strong')].map(e => e.textContent)" % inside)
        assert sorted(replies) == sorted(operation["responses"])


def test_a_link_opens_its_operation(server, browser):
    page = browser.page(server.url + "/docs#execute")
    page.wait("document.querySelector('#execute > .inside') !== null")
    assert page.run("document.querySelectorAll('.op[open]').length") == 1
    assert page.problems == []
    page.close()


def test_the_search_hides_what_does_not_match(documentation):
    documentation.type("#find", "health")
    shown = "[...document.querySelectorAll('.op:not([hidden])')].map(operation => operation.querySelector('.path').textContent)"
    assert documentation.run(shown) == ["/health"]
    documentation.type("#find", "")
    assert len(documentation.run(shown)) > 30


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_the_documentation_sends_a_call(server, documentation, kind):
    inside = opened(documentation, "execute")
    documentation.type("#key", server.key)
    documentation.type(inside + " textarea", json.dumps({"code": "print(6 * 7)", "language": "python"}))
    select = "[...document.querySelectorAll('%s select')].find(select => select.innerText.includes('text/event-stream'))" % inside
    documentation.run("(select => { select.value = '%s'; select.dispatchEvent(new Event('change', {bubbles: true})); })(%s)" % (kind, select))
    curl = documentation.text(inside + " > pre")
    # The key itself is in no command that a user may paste elsewhere.
    assert "print(6 * 7)" in curl and "Accept: " + kind in curl and server.key not in curl
    output = sent(documentation, inside)
    head, body = output.split("\n\n", 1)
    assert head.startswith("200 ") and "content-type: " + kind in head
    if kind == "application/json":
        result = json.loads(body)
        assert (result["stdout"], result["exit_code"]) == ("42\n", 0)
    else:
        texts = [json.loads(line[5:]) for line in body.splitlines() if line.startswith("data:")]
        assert any("42" in json.dumps(text) for text in texts), body


def test_the_documentation_shows_a_refusal(documentation):
    inside = opened(documentation, "execute")
    documentation.type("#key", "wrong")
    output = sent(documentation, inside)
    assert output.startswith("401 ") and "Invalid API key" in output


def test_the_policy_blocks_a_foreign_script(server, browser):
    page = browser.page(server.url + "/docs")
    page.wait("document.querySelectorAll('.op').length > 0")
    page.run(
        """new Promise(resolve => {
          document.addEventListener('securitypolicyviolation', event => resolve(event.effectiveDirective), {once: true});
          const script = document.createElement('script');
          script.textContent = 'window.didRun = true';
          document.body.append(script);
        })"""
    )
    assert page.run("window.didRun") is None
    # A violation fails the other tests: it is one of the page's problems.
    assert any(problem.get("contentSecurityPolicyIssueDetails") for problem in page.problems), page.problems
    page.close()


class Receiver(http.server.ThreadingHTTPServer):
    """The port of a command line that waits for its code."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.queries = queue.Queue()
        self.url = "http://127.0.0.1:%d/callback" % self.server_port
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Arrived</title>")
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/callback":
            self.server.queries.put(dict(urllib.parse.parse_qsl(url.query)))

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


def test_a_user_logs_in_for_a_command_line(server, browser, receiver):
    added = subprocess.run(
        [PROGRAM, "user", "add", "browser@example.org", "--password-stdin"],
        env=server.environment(),
        input=PASSWORD + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert added.returncode == 0, added.stderr
    verifier = "v" * 64
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    start = {
        "state": "state&1",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "redirect_uri": receiver.url,
        "hostname": "a <b>laptop</b>",
    }
    started = requests.post(server.url + "/api/cli-auth/start", json=start, timeout=30).json()
    page = browser.page(started["login_url"])
    assert page.text("strong") == "a <b>laptop</b>"
    # The style is in force.
    assert page.run("getComputedStyle(document.body).maxWidth") == "416px"
    page.type("input[name=email]", "browser@example.org")
    page.type("input[name=password]", "wrong password")
    with page.load():
        page.click("button")
    assert page.text("[role=alert]") == "The e-mail or the password is wrong."
    assert page.run("[...document.forms[0].elements].map(input => input.value)") == ["browser@example.org", "", ""]
    assert receiver.queries.empty()
    page.type("input[name=password]", PASSWORD)
    with page.load():
        page.click("button")
    assert page.run("document.title") == "Arrived"
    query = receiver.queries.get(timeout=10)
    assert query["state"] == "state&1"
    exchange = {"pairing_id": started["pairing_id"], "code": query["code"], "code_verifier": verifier}
    reply = requests.post(server.url + "/api/cli-auth/exchange", json=exchange, timeout=30).json()
    assert reply["user"]["email"] == "browser@example.org"
    used = requests.get(server.url + "/v1/users/me", headers={"X-API-Key": reply["api_key"]}, timeout=30)
    assert used.status_code == 200
    # One log-in, one code.
    page.open(started["login_url"])
    assert "There is no such log-in" in page.text("p")
    assert page.problems == []
    page.close()
