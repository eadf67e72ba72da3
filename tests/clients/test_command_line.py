"""`python -m clients`: every command, in every form, and what it says when something is wrong.

In this process, but for what only a process of its own has: streams that are closed, or of another encoding.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clients import InvalidInputError
from clients.command_line import files
from clients.core.metadata import ModelMetadata, TensorMetadata
from contracts import layout
from tests.clients.conftest import Run
from tests.clients.small_models import Small
from tests.conftest import RunningServer, free_ports
from tests.workspace import FAMILY, MODEL


def test_a_folder_becomes_a_table_with_what_failed_in_a_column(
    run: Run, server: RunningServer, examples: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.png").write_bytes((examples / "00000.png").read_bytes())
    (tmp_path / "text.png").write_bytes(b"hello")
    (tmp_path / "torn.png").symlink_to("/proc/self/mem")  # like a file on a disk that fails
    done = run("classify", "--csv", "--server", server.grpc, tmp_path)
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    assert done.returncode == 1
    assert [Path(row["path"]).name for row in rows] == ["good.png", "text.png", "torn.png"]
    assert rows[0]["label"] and float(rows[0]["score"]) > 0 and not rows[0]["error"]
    assert "not a readable PNG or JPEG" in rows[1]["error"] and not rows[1]["label"]
    assert "cannot read it: Input/output error" in rows[2]["error"]
    assert b"1 classified, 2 failed" in done.stderr


def test_what_a_folder_has_and_cannot_be_read_is_named(
    run: Run, server: RunningServer, examples: Path, tmp_path: Path
) -> None:
    image = (examples / "00000.png").read_bytes()
    for folder in ("open", "closed", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.png").write_bytes(image)
    root = tmp_path / "open"
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "gone.png").symlink_to("nothing")
    os.mkfifo(root / "pipe.png")
    (tmp_path / "closed").rename(root / "closed")
    found = [path.relative_to(root) for path in files.image_files([str(root)])]
    assert [str(path) for path in found] == ["closed/one.png", "gone.png", "link/one.png", "one.png"]
    done = run("classify", "--csv", "--server", server.grpc, root)
    assert done.returncode == 1
    assert b"gone.png,,,cannot read it: No such file" in done.stdout
    assert b"3 classified, 1 failed" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not read")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    for parent in (tmp_path, *tmp_path.parents[:3]):  # pytest's own; one more beside another process of its
        parent.chmod(parent.stat().st_mode | 0o055)
    if (child := os.fork()) == 0:
        code = 1
        try:
            os.setuid(65534)
            code = [*files.image_files([str(tmp_path)])] != [closed]
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_an_image_comes_from_standard_input(run: Run, server: RunningServer, examples: Path) -> None:
    image = (examples / "00000.png").read_bytes()
    done = run("classify", "--json", "--server", server.grpc, "-", stdin=image)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["path"], answer["model"], answer["version"]) == ("-", FAMILY, 1)
    assert f"1 classified, 0 failed; answered by {FAMILY} version 1\n".encode() in done.stderr


def test_which_version_answered_is_told_beside_the_outputs(run: Run, server: RunningServer) -> None:
    zeros = f"pixels={np.zeros((1, 1, 28, 28), np.uint8).tolist()}"
    done = run("infer", MODEL, "--server", server.grpc, "--input", zeros, "--json")
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["version"], "probabilities" in answer["outputs"]) == (MODEL, 1, True)
    plain = run("infer", MODEL, "--server", server.grpc, "--input", zeros)
    assert json.loads(plain.stdout) == answer["outputs"]
    assert plain.stderr == f"answered by {MODEL} version 1\n".encode()


@pytest.mark.parametrize("form", ["json", "npy", "stdin"])
def test_any_model_can_be_asked(run: Run, server: RunningServer, tmp_path: Path, form: str) -> None:
    pixels = np.zeros((2, 1, 28, 28), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    written = {
        "json": ["--input", f"pixels={pixels.tolist()}"],
        "npy": ["--input", f"pixels=@{tmp_path / 'pixels.npy'}"],
        "stdin": [],
    }[form]
    stdin = json.dumps({"pixels": pixels.tolist()}).encode()
    done = run(
        "infer", MODEL, "--server", server.grpc, "--output", "probabilities", *written,
        stdin=stdin,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"probabilities"}
    assert np.sum(answer["probabilities"], axis=1) == pytest.approx(1, abs=1e-4)


def test_an_answer_can_be_kept_as_arrays_and_a_file_be_sent_as_it_is(
    run: Run, server: RunningServer, examples: Path, tmp_path: Path
) -> None:
    image, kept = examples / "00000.png", tmp_path / "answer.npz"
    done = run("infer", FAMILY, "--server", f"http://{server.http}", "--input", f"image=@{image}", "--save", kept)
    assert done.returncode == 0, done.stderr
    assert np.load(kept)["label"].dtype.kind == "S"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("pixels", "is not NAME=VALUE"),
        ("pixels=[[", "--input pixels: "),
        ("pixels=@nothing.npy", "cannot read nothing.npy"),
        ("pixel=[1]", "it has no input 'pixel'"),
        ("pixels=[300]", "not every value is a UINT8"),
        ("pixels=[0.5]", "not every value is a UINT8"),
        ("pixels=null", "not every value is a UINT8"),
        ('pixels={"a": 1}', "not every value is a UINT8"),
        ("pixels=[[1, 2], [3]]", "rows of the same length"),
        (f"pixels={10**30}", "not every value is a UINT8"),
        ("pixels=@/dev/null", "pixels has the dtype object, and must have uint8"),
        ("pixels=" + "[" * 20_000, "--input pixels: "),
        ("pixels=[1]", "pixels has the shape [1], which does not fit [-1, 1, 28, 28]"),
    ],
)
def test_what_cannot_be_sent_is_named(run: Run, server: RunningServer, written: str, message: str) -> None:
    done = run("infer", MODEL, "--server", server.grpc, "--input", written)
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("held", "hint"), [(("pixels", "labels"), "['pixels']"), (("wave",), "['wave']")])
def test_an_archive_of_arrays_is_not_taken_for_an_array(tmp_path: Path, held: tuple[str, ...], hint: str) -> None:
    np.savez(tmp_path / "x.npz", **{name: np.zeros(3) for name in held})  # type: ignore[arg-type]  # allow_pickle
    metadata = ModelMetadata("network", (TensorMetadata("pixels", "UINT8", (-1, 3)),), (), 4)
    with pytest.raises(InvalidInputError) as refused:
        files.read_inputs([f"pixels=@{tmp_path / 'x.npz'}"], metadata)
    assert "is an archive of arrays (.npz)" in str(refused.value) and hint in str(refused.value)


def test_what_would_become_infinite_is_refused() -> None:
    for datatype, value, right in (("FP16", 70_000, 65_504), ("BF16", 1e39, 1e38), ("FP32", 1e39, 1e38)):
        tensor = TensorMetadata("x", datatype, (1,))
        assert np.isfinite(files.array_of([right], tensor)).all()
        assert np.isinf(files.array_of([float("inf")], tensor)).all()
        with pytest.raises(InvalidInputError, match=f"not every value is a {datatype}"):
            files.array_of([value], tensor)


def test_outputs_of_any_name_and_type_are_saved(tmp_path: Path) -> None:
    half = files.array_of([1.5], TensorMetadata("x", "BF16", (1,)))
    outputs = {"file": np.arange(3), "allow_pickle": np.array([b"a"]), "half": half}
    files.save(tmp_path / "saved.npz", outputs)
    with np.load(tmp_path / "saved.npz") as saved:
        assert {name: saved[name].tolist() for name in saved} == {
            "file": [0, 1, 2], "allow_pickle": [b"a"], "half": [1.5]
        }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "shown"),
    [
        ("classify - <&-", 1, "the image is empty"),
        (f"infer {MODEL} <&-", 1, "standard input is not a JSON object"),
        ("health >&-", 0, ""),
        ("classify --csv {image} 2>&-", 0, "path,label,score,error,version\n{image},"),
    ],
)
def test_a_stream_may_be_closed(server: RunningServer, examples: Path, command: str, code: int, shown: str) -> None:
    image = str(examples / "00000.png")
    words, _, closed = command.format(image=image).rpartition(" ")
    done = subprocess.run(
        f"{sys.executable} -m clients {words} --server {server.grpc} {closed}",
        shell=True,
        cwd=layout.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if "2>" not in command else None,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert shown.format(image=image) in done.stdout
    assert "Traceback" not in done.stdout
    assert "classified" not in done.stdout or "2>" not in closed


def test_a_terminal_may_have_ascii_only(server: RunningServer) -> None:
    done = subprocess.run(
        server.workspace.command("clients", "health", "--server", server.grpc),
        cwd=layout.ROOT,
        env={**server.workspace.environment, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith(rb"\u2713"), done.stderr


def test_a_path_that_the_system_does_not_take_is_named(run: Run) -> None:
    done = run("classify", "x" * 300)
    assert done.returncode == 1
    assert b"File name too long" in done.stderr and b"Traceback" not in done.stderr


def test_what_is_no_text_is_shown_whole_and_not_saved_cut(run: Run, small: Small, tmp_path: Path) -> None:
    file = tmp_path / "content"
    ask = ["infer", "simple_identity", "--server", small.urls["grpc"], "--input", f"INPUT0=@{file}"]
    for content, shown in {b"\xe2\x9c\x93": "✓", b"\xff\x00": {"b64": "/wA="}}.items():
        file.write_bytes(content)
        assert json.loads(run(*ask).stdout) == {"OUTPUT0": [[shown]]}
    refused = run(*ask, "--save", tmp_path / "answer.npz")
    assert refused.returncode == 1 and b"OUTPUT0 ends with zero bytes" in refused.stderr
    assert not (tmp_path / "answer.npz").exists()


def test_models_tells_what_is_served_and_what_it_takes(run: Run, server: RunningServer) -> None:
    for address in (server.grpc, f"http://{server.http}"):
        done = run("models", "--json", "--server", address)
        found = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
        assert found[FAMILY]["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
        assert found[MODEL]["max_batch_size"] == 64
    assert b"inputs   pixels: UINT8 [-1, 1, 28, 28]" in run("models", "--server", server.grpc).stdout


def test_health_is_an_exit_code(run: Run, server: RunningServer) -> None:
    assert run("health", "--server", server.grpc, "--model", FAMILY).returncode == 0
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = run("health", "--json", "--server", f"http://{server.http}", "--server", nobody)
    assert done.returncode == 1
    assert [json.loads(line)["ready"] for line in done.stdout.splitlines()] == [True, False]
    assert run("health", "--server", server.grpc, "--model", "nope").returncode == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--server", "ftp://host"], "invalid server URL 'ftp://host'"),
        (["--server", "host:port"], "invalid server URL 'host:port'"),
        (["--http", "--server", "host"], "give one of the two"),
        (["--headers", "nothing"], "cannot read the headers in nothing"),
        (["--server", "grpcs://localhost", "--ca", "nothing.pem"], "cannot use the certificates"),
    ],
)
def test_options_that_make_no_sense_are_refused(run: Run, options: list[str], message: str) -> None:
    done = run("health", *options)
    assert done.returncode == 1
    assert message in done.stderr.decode()


@pytest.mark.parametrize("option", [("health", "--wait"), ("models", "--timeout")])
def test_a_time_is_a_number_of_seconds(run: Run, option: tuple[str, str]) -> None:
    done = run(*option, "nan")
    assert done.returncode == 2
    assert b"expected 0 to 86400 seconds, got 'nan'" in done.stderr


def test_a_name_may_be_any_bytes(server: RunningServer, examples: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes((examples / "00000.png").read_bytes())
    forms = (), ("--csv",), ("--json",)
    command = server.workspace.command("clients", "classify", "--server", server.grpc, tmp_path)
    started = [
        subprocess.Popen([*command, *form], cwd=layout.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for form in forms
    ]
    for process in started:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert b"udcff.png" in output


def test_headers_come_from_a_file(run: Run, server: RunningServer, tmp_path: Path) -> None:
    key = (server.workspace.root / "artifacts" / "server" / "admin.key").read_text().strip()
    file = tmp_path / "headers"
    file.write_text(f"X-Tenant: me\nadmin-key: {key}\n")
    assert run("health", "--server", server.grpc, "--headers", file).returncode == 0
    file.write_text("nonsense")
    assert b"line 1: not a header" in run("health", "--headers", file).stderr


def test_the_reader_may_leave(server: RunningServer, examples: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nowhere:
        done = subprocess.run(
            server.workspace.command("clients", "classify", "--server", server.grpc, examples),
            cwd=layout.ROOT,
            env=server.workspace.environment,
            stdout=nowhere,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 141, done.stderr
    assert b"Traceback" not in done.stderr
