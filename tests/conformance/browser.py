# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven by the DevTools protocol over a pair of pipes."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time

from server import wait_until

SECONDS = 60


class Browser:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="swiftlet-browser-")
        commands, self.commands = os.pipe()
        self.replies, replies = os.pipe()
        flags = ["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"]
        # Chromium's sandbox does not run as root.
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        self.log = open(self.directory + ".log", "wb")
        # Chromium reads commands from descriptor 3 and writes replies to 4.
        script = 'exec "$@" 3<&%d 4>&%d' % (commands, replies)
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", "chromium", *flags, "--user-data-dir=" + self.directory, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[commands, replies],
        )
        os.close(commands)
        os.close(replies)
        self.buffer = b""
        self.last = 0
        self.pages = {}

    def call(self, method, session=None, **parameters):
        """Sends a command; returns its result. Events that come before the reply go to their pages."""
        self.last += 1
        number = self.last
        command = {"id": number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        self.send(json.dumps(command).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            message = self.receive(end)
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.dispatch(message)

    def dispatch(self, message):
        if message.get("sessionId") in self.pages:
            self.pages[message["sessionId"]].take(message["method"], message["params"])

    def send(self, data):
        while data:
            data = data[os.write(self.commands, data) :]

    def receive(self, end):
        while b"\0" not in self.buffer:
            readable, _, _ = select.select([self.replies], [], [], max(0, end - time.monotonic()))
            piece = os.read(self.replies, 1 << 20) if readable else b""
            assert piece, "Chromium did not answer:\n" + self.log_text()
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def log_text(self):
        with open(self.log.name, errors="replace") as log:
            return log.read()[-20_000:]

    def page(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, target, session)
        page.open(url)
        return page

    def close(self):
        self.process.terminate()
        self.process.wait(SECONDS)
        os.close(self.commands)
        os.close(self.replies)
        self.log.close()
        os.unlink(self.log.name)
        shutil.rmtree(self.directory, ignore_errors=True)


class Page:
    def __init__(self, browser, target, session):
        self.browser = browser
        self.target = target
        self.session = session
        # Errors and warnings of scripts, of the console and of the security policy. A response's status is not one of them.
        self.problems = []
        self.loads = 0
        for domain in ["Page", "Runtime", "Log", "Audits"]:
            self.call(domain + ".enable")

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def take(self, event, parameters):
        if event == "Page.loadEventFired":
            self.loads += 1
        elif event == "Runtime.exceptionThrown":
            self.problems.append(parameters["exceptionDetails"])
        elif event == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(parameters["args"])
        elif event == "Log.entryAdded":
            entry = parameters["entry"]
            if entry["source"] != "network" and entry["level"] in ("error", "warning"):
                self.problems.append(entry)
        elif event == "Audits.issueAdded" and parameters["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.problems.append(parameters["issue"]["details"])

    def open(self, url):
        with self.load():
            self.call("Page.navigate", url=url)

    def load(self):
        """A scope, at whose end another document has been loaded than at its beginning."""
        return Load(self)

    def run(self, expression):
        """The value of a JavaScript expression; of a promise, what it resolves to."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, expression):
        """Waits until an expression is true; returns its value."""
        return wait_until(lambda: self.run(expression), SECONDS)

    def type(self, selector, text):
        """Types a text as a user does, in place of what an input has."""
        self.run("(input => { input.focus(); input.select(); })(document.querySelector(%s))" % json.dumps(selector))
        self.call("Input.insertText", text=text)

    def click(self, selector):
        self.run("document.querySelector(%s).click()" % json.dumps(selector))

    def text(self, selector):
        return self.run("document.querySelector(%s).innerText" % json.dumps(selector))

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)


class Load:
    def __init__(self, page):
        self.page = page

    def __enter__(self):
        self.before = self.page.loads

    def __exit__(self, kind, error, trace):
        if kind is None:
            end = time.monotonic() + SECONDS
            while self.page.loads == self.before:
                self.page.browser.dispatch(self.page.browser.receive(end))
