# SPDX-License-Identifier: Apache-2.0
"""The command line, as a user types it."""

import http.server
import json
import os
import subprocess
import threading

from server import IMAGES, PROGRAM, wait_until


def exec_(server, *words, input=None, url=None):
    environment = dict(os.environ, SWIFTLET_DATA_DIRECTORY=server.directory)
    return subprocess.run(
        [PROGRAM, "exec", "--url", url or server.url, *words],
        env=environment,
        input=input,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_exec_runs_code_and_ends_with_its_code(server, session):
    result = exec_(server, "--session", session.id, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_exec_reads_standard_input_and_takes_bash(server, session):
    result = exec_(server, "--session", session.id, "--language", "bash", "-", input="echo $((6 * 7))\n")
    assert (result.stdout, result.returncode) == ("42\n", 0)


def test_exec_says_what_is_wrong(server):
    result = subprocess.run(
        [PROGRAM, "exec", "--url", "http://127.0.0.1:9", "--key", "k", "1"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode != 0 and "swiftlet serve" in result.stderr
    result = exec_(server, "--key", "wrong", "1")
    assert result.returncode != 0 and "Invalid API key" in result.stderr


def test_the_first_key_goes_to_no_other_machine(server):
    for url in ["http://swiftlet.invalid", "http://127.0.0.1.swiftlet.invalid", "http://127.0.0.1@swiftlet.invalid", "http://127.1.swiftlet.invalid"]:
        result = exec_(server, "1", url=url)
        assert result.returncode != 0 and "No API key" in result.stderr, (url, result.stderr)
    # With a key of its own it goes anywhere.
    result = exec_(server, "--key", "k", "1", url="http://swiftlet.invalid")
    assert "does not answer" in result.stderr


def test_a_key_does_not_follow_a_redirect(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    asked = []
    elsewhere = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    result = exec_(server, "1", url="http://localhost:%d" % elsewhere.server_port)
    elsewhere.shutdown()
    assert result.returncode != 0 and "307" in result.stderr and asked == ["/execute"]


def test_settings_out_of_range_are_refused_with_their_names(server):
    result = subprocess.run([PROGRAM, "serve", "--port", "99999"], capture_output=True, text=True, timeout=30)
    assert result.returncode != 0 and "SWIFTLET_PORT" in result.stderr
    environment = dict(os.environ, SWIFTLET_VCPU_COUNT="many")
    result = subprocess.run([PROGRAM, "image", "list"], env=environment, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0 and "SWIFTLET_VCPU_COUNT" in result.stderr
    environment = dict(os.environ, SWIFTLET_VCPU_COUNT="3")
    result = subprocess.run([PROGRAM, "image", "list"], env=environment, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0 and "one of: 1, 2, 4, 6, 8" in result.stderr


def greeting(directory, tmp_path):
    """What a server prints from its start to its end."""
    environment = dict(os.environ, SWIFTLET_DATA_DIRECTORY=str(directory), SWIFTLET_IMAGES_DIRECTORY=str(tmp_path / "none"))
    file = tmp_path / "output"
    with open(file, "w") as output:
        server = subprocess.Popen([PROGRAM, "serve", "--port", "0"], env=environment, stdout=output, stderr=output)
        try:
            wait_until(lambda: "listens on" in file.read_text(), 60)
        finally:
            server.terminate()
            assert server.wait(60) == 0
    return file.read_text()


def test_a_key_is_printed_when_it_is_made_and_never_again(tmp_path):
    directory = tmp_path / "data"
    file = directory / "first-key"
    first = greeting(directory, tmp_path)
    key = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert first.count(key) == 2 and "Key:  " + key in first
    second = greeting(directory, tmp_path)
    assert key not in second and str(file) in second
    file.unlink()
    third = greeting(directory, tmp_path)
    assert key not in third and not file.exists()


def test_flags_count_before_the_environment_and_that_before_the_file(tmp_path):
    file = tmp_path / "swiftlet.json"
    file.write_text(json.dumps({"imagesDirectory": "/from-file"}))
    words = [PROGRAM, "image", "list", "--config", str(file)]
    plain = {name: value for name, value in os.environ.items() if name != "SWIFTLET_IMAGES_DIRECTORY"}

    def listed(*more, **environment):
        result = subprocess.run([*words, *more], env={**plain, **environment}, capture_output=True, text=True, timeout=30)
        return result.stdout

    assert "/from-file" in listed()
    assert "/from-environment" in listed(SWIFTLET_IMAGES_DIRECTORY="/from-environment")
    assert "/from-flag" in listed("--images-directory", "/from-flag", SWIFTLET_IMAGES_DIRECTORY="/from-environment")


def test_doctor_finds_this_host_fit_and_tells_what_kvm_is_worth(tmp_path):
    environment = dict(os.environ, SWIFTLET_DATA_DIRECTORY=str(tmp_path), SWIFTLET_IMAGES_DIRECTORY=IMAGES)
    result = subprocess.run(
        [PROGRAM, "doctor", "--image-variant", "minimal", "--json"], env=environment, capture_output=True, text=True, timeout=120
    )
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert result.returncode == 0, result.stdout
    assert findings["QEMU"]["state"] == "good"
    accelerator = findings["Accelerator"]
    assert accelerator["words"].startswith("KVM") or "security boundary" in accelerator["words"]
    if os.path.exists("/dev/kvm") and not accelerator["words"].startswith("KVM"):
        assert "/dev/kvm" in accelerator["words"]


def test_doctor_names_what_is_missing_and_the_remedy(tmp_path):
    environment = dict(os.environ, SWIFTLET_DATA_DIRECTORY=str(tmp_path), SWIFTLET_IMAGES_DIRECTORY=str(tmp_path), SWIFTLET_QEMU="/nowhere")
    result = subprocess.run([PROGRAM, "doctor"], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "apt-get install qemu-system-x86" in result.stdout
    assert "swiftlet image build" in result.stdout


def test_truth_values_in_the_configuration_file_are_jsons(tmp_path):
    file = tmp_path / "swiftlet.json"
    words = [PROGRAM, "image", "list", "--config", str(file), "--data-directory", str(tmp_path)]
    for values, code in [({"templates": False, "insecureNoJail": True}, 0), ({"templates": "true"}, 0), ({"templates": 2}, 64)]:
        file.write_text(json.dumps(values))
        result = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert result.returncode == code, (values, result.stderr)
