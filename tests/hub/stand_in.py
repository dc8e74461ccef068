"""A stand-in for the Hugging Face Hub on this machine: the part of its HTTP interface that downloads and pushes use.

Repositories of models, with branches of commits, where a commit is its files by name. Files that end in .safetensors
are uploaded as the hub takes large files (LFS), all others inside of the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standintokenABCDEFGHIJKLMNOPQRSTUV"
"""The only token that the stand-in accepts."""
Files = dict[str, bytes]


@dataclass
class StoredModel:
    """A repository."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    """The commit of each branch."""
    commits: dict[str, Files] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """Of each commit."""

    def commit(self, branch: str, files: Files, message: str = "") -> str:
        """Let a branch be a new commit of these files."""
        content = repr(
            (len(self.commits), sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items()))
        )
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.branches[branch] = files, message, sha
        return sha

    def files(self, revision: str = "main") -> Files:
        """The files of a branch or commit."""
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class HubState:
    """What the stand-in holds, and what it was asked."""

    url: str = ""
    models: dict[str, StoredModel] = field(default_factory=dict)
    uploads: Files = field(default_factory=dict)
    """Large files by their SHA-256, which no commit has to contain."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    failing: str | None = None
    """A regular expression: requests whose method and path it matches get the status 500."""

    def add(self, name: str, files: Files, **options: bool) -> StoredModel:
        """A new repository with a first commit."""
        self.models[name] = StoredModel(**options)
        self.models[name].commit("main", files)
        return self.models[name]


@contextmanager
def serving() -> Iterator[HubState]:
    """Run a stand-in without repositories."""
    state = HubState()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


def _handler_of(state: HubState) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.requests.append((self.command, path))
            try:
                if state.failing and re.search(state.failing, f"{self.command} {path}"):
                    raise _Refused(500, message="made to fail")
                status, headers, content = Exchange(state, self.headers, body).answer(self.command, path)
            except _Refused as refused:
                status, headers, content = refused.status, refused.headers, b""
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _answer

    return Handler


Answer = tuple[int, dict[str, str], bytes]


def _json(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@dataclass
class Exchange:
    """One request."""

    state: HubState
    headers: Any
    body: bytes

    def answer(self, method: str, path: str) -> Answer:
        name = r"(?P<name>[^/]+/[^/]+?)"
        routes: dict[str, Callable[..., Answer]] = {
            rf"GET /api/models/{name}(?:/revision/(?P<revision>.+))?": self.info,
            rf"(?:GET|HEAD) /{name}/resolve/(?P<revision>.+)/(?P<file>.+?)": self.file,
            r"POST /api/repos/create": self.create,
            rf"POST /api/models/{name}/branch/(?P<branch>.+)": self.branch,
            rf"POST /api/models/{name}/preupload/(?P<revision>.+)": self.preupload,
            rf"POST /{name}\.git/info/lfs/objects/batch": self.batch,
            r"PUT /lfs/(?P<digest>\w+)": self.upload,
            rf"POST /api/models/{name}/commit/(?P<revision>.+)": self.commit,
            r"POST /api/validate-yaml": self.validate,
        }
        for pattern, route in routes.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return route(**found.groupdict())
        raise _Refused(404, message=f"the stand-in has no {method} {path}")

    @property
    def authorized(self) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            raise _Refused(401, message="Invalid credentials in Authorization header")
        return given is not None

    def model(self, name: str, *, content: bool = False, write: bool = False) -> StoredModel:
        """A repository that this request may see."""
        model, authorized = self.state.models.get(name), self.authorized
        if model is None or (model.private and not authorized):
            raise _Refused(404 if authorized else 401, "RepoNotFound" if authorized else "", "Repository not found")
        if content and model.gated and not authorized:
            raise _Refused(401, "GatedRepo", f"Access to model {name} is restricted.")
        if write and (not authorized or name.startswith("others/")):
            raise _Refused(403 if authorized else 401, message="You don't have the rights to write here")
        return model

    def at(self, model: StoredModel, revision: str | None) -> tuple[str, Files]:
        sha = model.branches.get(revision or "main", revision or "")
        if sha not in model.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, model.commits[sha]

    def info(self, name: str, revision: str | None) -> Answer:
        model = self.model(name)
        sha, files = self.at(model, revision)
        siblings = [{"rfilename": file} for file in sorted(files)]
        return _json({"_id": "1", "id": name, "sha": sha, "private": model.private, "siblings": siblings, "tags": []})

    def file(self, name: str, revision: str, file: str) -> Answer:
        sha, files = self.at(self.model(name, content=True), revision)
        if file not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(wanted[1]), int(wanted[2] or len(content))
            part = content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            return 206, headers, part
        return 200, headers, content

    def create(self) -> Answer:
        wanted = json.loads(self.body)
        if not self.authorized:
            raise _Refused(401, message="Invalid username or password.")
        name = f"{wanted['organization']}/{wanted['name']}"
        if name.startswith("others/"):
            raise _Refused(403, message="You don't have the rights to create a model under the namespace others")
        if name in self.state.models:
            raise _Refused(409, message="You already created this model repo")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))  # before version 2
        self.state.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return _json({"url": f"{self.state.url}/{name}"})

    def branch(self, name: str, branch: str) -> Answer:
        model = self.model(name, write=True)
        if branch in model.branches:
            raise _Refused(409, message="Reference already exists")
        model.branches[branch] = model.branches["main"]
        return _json({})

    def preupload(self, name: str, revision: str) -> Answer:
        _, before = self.at(self.model(name, write=True), revision)
        files = [
            {
                "path": path,
                "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": _object_id(path, before[path]) if path in before else None,
            }
            for path in (file["path"] for file in json.loads(self.body)["files"])
        ]
        return _json({"files": files})

    def batch(self, name: str) -> Answer:
        self.model(name, write=True)
        objects = json.loads(self.body)["objects"]
        for wanted in objects:
            if wanted["oid"] not in self.state.uploads:
                href = f"{self.state.url}/lfs/{wanted['oid']}"
                wanted["actions"] = {"upload": {"href": href, "header": {}}}
        return _json({"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> Answer:
        if hashlib.sha256(self.body).hexdigest() != digest:
            raise _Refused(400, message="another content")
        self.state.uploads[digest] = self.body
        return 200, {}, b""

    def commit(self, name: str, revision: str) -> Answer:
        model = self.model(name, write=True)
        head, before = self.at(model, revision)
        files, message = dict(before), ""
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise _Refused(412, message="A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.state.uploads[value["oid"]]
            else:
                assert key == "deletedFile", key
                del files[value["path"]]
        sha = model.commit(revision, files, message)
        return _json({"success": True, "commitOid": sha, "commitUrl": f"{self.state.url}/{name}/commit/{sha}"})

    def validate(self) -> Answer:
        return _json({"errors": [], "warnings": []})


def _object_id(path: str, content: bytes) -> str:
    """By what a client knows that a file has not changed."""
    if path.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
