# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller of AWX in memory: as much of its API, and of what it refuses, as the modules of awx.awx meet.

It keeps objects, hides secrets, adds what was left out, and judges surveys, playbooks, schedules and workflows by the rules of
AWX 24.6 (awx/api/views, awx/api/serializers, awx/main/models). Every write is noted.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import threading
import typing as t
import urllib.parse

Item = dict[str, t.Any]

TOKEN = "t0ken-of-the-tests"
ENCRYPTED = "$encrypted$"
PRODUCT = {"X-API-Product-Name": "AWX", "X-API-Product-Version": "24.6.1"}

_NOTIFIED = ("notification_templates_started", "notification_templates_success", "notification_templates_error")
#: What can be associated with an object, and of which type that is.
ASSOCIATIONS: dict[str, dict[str, str]] = {
    "job_templates": {"credentials": "credentials", **dict.fromkeys(_NOTIFIED, "notification_templates")},
    "workflow_job_templates": dict.fromkeys((*_NOTIFIED, "notification_templates_approvals"), "notification_templates"),
    "workflow_job_template_nodes": dict.fromkeys(
        ("success_nodes", "failure_nodes", "always_nodes"), "workflow_job_template_nodes"
    ),
    "schedules": {"credentials": "credentials"},
    "projects": dict.fromkeys(_NOTIFIED, "notification_templates"),
}
TYPES = {"inventories": "inventory"}
#: What the controller adds to a new object.
DEFAULTS: dict[str, Item] = {
    "job_templates": {"description": "", "job_type": "run", "extra_vars": "---", "limit": "", "timeout": 0, "forks": 0},
    "workflow_job_templates": {"description": "", "extra_vars": "", "inventory": None},
    "workflow_job_template_nodes": {"unified_job_template": None, "extra_data": {}, "all_parents_must_converge": False},
    "workflow_approval_templates": {"description": "", "timeout": 0},
    "credentials": {"description": "", "inputs": {}, "organization": None},
    "credential_types": {"description": "", "managed": False},
    "notification_templates": {"description": "", "messages": None},
    "projects": {"description": "", "scm_branch": "", "scm_revision": "0" * 40, "status": "successful"},
    "execution_environments": {"description": "", "pull": "", "credential": None},
    "schedules": {"description": "", "enabled": True, "extra_data": {}},
    "organizations": {"description": ""},
    "inventories": {"description": "", "kind": ""},
}
#: What a webhook's notification has; the password is a secret.
_WEBHOOK = {
    "http_method": "POST", "disable_ssl_verification": False, "username": "", "password": "",
}  # fmt: skip
_NEEDED = {"webhook": ("url", "headers"), "slack": ("token", "channels")}
_SECRETS = {"webhook": ("password",), "slack": ("token",), "email": ("password",)}
_QUESTION_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str, "textarea": str, "password": str, "multiplechoice": str, "multiselect": str, "integer": int, "float": (int, float),
}  # fmt: skip
_UNIFIED = ("job_templates", "workflow_job_templates", "projects", "workflow_approval_templates")


class BadRequest(Exception):
    """What the controller answers with 400."""


@dataclasses.dataclass(frozen=True)
class Write:
    """A request that changes something."""

    method: str
    path: str
    body: Item


class AwxServer(http.server.ThreadingHTTPServer):
    """The controller, on a free port of this host.

    :param playbooks: the files of every project, once it was updated.
    """

    daemon_threads = True

    def __init__(self, playbooks: t.Collection[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.playbooks = playbooks
        self.objects: dict[str, dict[int, Item]] = {kind: {} for kind in DEFAULTS}
        self.associated: dict[tuple[str, int, str], list[int]] = {}
        self.surveys: dict[tuple[str, int], Item] = {}
        self.secrets: dict[tuple[str, int], Item] = {}
        self.writes: list[Write] = []
        self._last = 0

    def __enter__(self) -> AwxServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        """Its address, for CONTROLLER_HOST."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, kind: str, fields: Item) -> Item:
        """Make an object, as the controller shows it.

        :raises BadRequest: the controller would refuse it.
        """
        fields = {name: value for name, value in fields.items() if name not in {"type", "id", "url"}}
        self.judge(kind, {**DEFAULTS[kind], **fields}, None)
        self._last += 1
        item = {
            "id": self._last,
            "type": TYPES.get(kind, kind.removesuffix("s")),
            "url": f"/api/v2/{kind}/{self._last}/",
        }
        self.objects[kind][self._last] = item
        return self.change(kind, item, {**DEFAULTS[kind], **fields})

    def change(self, kind: str, item: Item, fields: Item) -> Item:
        """Set fields of an object, as the controller would keep and show them."""
        number = item["id"]
        shown = {name: value for name, value in fields.items() if name not in {"type", "id", "url"}}
        if kind == "credentials" and "inputs" in shown:
            # All that there is from now on; what comes as it is shown is kept (awx/main/models/credential.py, Credential.save).
            had = self.secrets.get((kind, number), {})
            self.secrets[kind, number] = {
                name: had[name] if value == ENCRYPTED else value for name, value in shown["inputs"].items()
            }
            secret = {field["id"] for field in self._type_of(fields, item)["inputs"]["fields"] if field.get("secret")}
            shown["inputs"] = _hidden(shown["inputs"], secret)
        if kind == "notification_templates" and "notification_configuration" in shown:
            configuration = shown["notification_configuration"]
            self.secrets.setdefault((kind, number), {}).update(_raw(configuration))
            notification = str(fields.get("notification_type", item.get("notification_type")))
            added = _WEBHOOK if notification == "webhook" else {}
            shown["notification_configuration"] = _hidden(
                {**added, **configuration}, set(_SECRETS.get(notification, ()))
            )
        if kind == "notification_templates" and shown.get("messages"):
            shown["messages"] = {
                **dict.fromkeys(("started", "success", "error", "workflow_approval")),
                **shown["messages"],
            }
        if kind == "job_templates" and "project" in shown:
            # Not its own: a job template is of its project's organization.
            shown["organization"] = self.objects["projects"][shown["project"]]["organization"]
        item.update(shown)
        return item

    def _type_of(self, fields: Item, item: Item) -> Item:
        return self.objects["credential_types"][int(fields.get("credential_type") or item["credential_type"])]

    def judge(self, kind: str, fields: Item, item: Item | None) -> None:
        """Refuse what the controller refuses."""
        same = ("name", "identifier", "organization", "workflow_job_template", "credential_type")
        for other in self.objects[kind].values():
            if other is not item and all(other.get(name) == fields.get(name) for name in same):
                raise BadRequest(f"One of the {kind} with this name exists already.")
        if kind == "job_templates" and fields.get("playbook") not in self.playbooks:
            raise BadRequest("Playbook not found for project.")
        if kind == "schedules":
            self._judge_schedule(fields)
        if kind == "notification_templates":
            needed = _NEEDED.get(fields["notification_type"], ())
            missing = [name for name in needed if name not in fields["notification_configuration"]]
            if missing:
                raise BadRequest(f"Missing required fields for Notification Configuration: {missing}.")

    def _judge_schedule(self, fields: Item) -> None:
        if not re.match(r"DTSTART(;TZID=\S+)?:\d{8}T\d{6}Z? RRULE:FREQ=\w+;INTERVAL=\d+", fields.get("rrule", "")):
            raise BadRequest("A valid DTSTART and an RRULE with INTERVAL are required in rrule.")
        survey = self.surveys.get(("job_templates", fields["unified_job_template"]), {"spec": []})
        questions = {question["variable"]: question for question in survey["spec"]}
        for variable, answer in fields["extra_data"].items():
            if variable not in questions:
                raise BadRequest(f"Variables {variable} are not allowed on launch.")
            question = questions[variable]
            if question["type"] == "multiplechoice" and answer not in question["choices"]:
                raise BadRequest(f"Value {answer} for '{variable}' expected to be one of {question['choices']}.")

    def unified(self) -> list[Item]:
        """Everything that can be a step or be scheduled."""
        return [item for kind in _UNIFIED for item in self.objects[kind].values()]

    def shown(self, kind: str, item: Item) -> Item:
        """An object with what it refers to."""
        related = {"survey_spec": f"{item['url']}survey_spec/", "update": f"{item['url']}update/"}
        template = next((one for one in self.unified() if one["id"] == item.get("unified_job_template")), None)
        if template is not None:
            related["unified_job_template"] = template["url"]
        survey = {"survey_spec": self.surveys[kind, item["id"]]} if (kind, item["id"]) in self.surveys else {}
        return {**item, "related": related, "summary_fields": survey}


def _raw(inputs: Item) -> Item:
    return {name: value for name, value in inputs.items() if value != ENCRYPTED}


def _hidden(inputs: Item, secret: t.Collection[str]) -> Item:
    return {name: ENCRYPTED if name in secret and value else value for name, value in inputs.items()}


def survey_problem(survey: Item) -> str | None:
    """Why the controller would refuse a survey; ``None`` where it would not."""
    for field, kind in (("name", str), ("description", str), ("spec", list)):
        if not isinstance(survey.get(field), kind):
            return f"Field '{field}' is missing from survey spec."
    variables = [question.get("variable") for question in survey["spec"]]
    if not variables or len(set(variables)) != len(variables):
        return "'spec' doesn't contain any items, or a variable is duplicated."
    return next((problem for question in survey["spec"] if (problem := _question_problem(question))), None)


def _question_problem(question: Item) -> str | None:
    for field, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
        if not isinstance(question.get(field), kind):
            return f"'{field}' of {question} is missing or of another type."
    if question["type"] not in _QUESTION_TYPES:
        return f"{question['type']} is not a type."
    default = question.get("default", "")
    if default != "" and not isinstance(default, _QUESTION_TYPES[question["type"]]):
        return f"Default value {default} expected to be {question['type']}."
    if question["type"] in {"multiplechoice", "multiselect"}:
        if not question.get("choices"):
            return f"{question['variable']} must specify choices."
        if default and default not in question["choices"]:
            return "Default choice must be answered from the choices listed."
    return None


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: AwxServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle(self._get)

    def do_POST(self) -> None:
        self._handle(self._post)

    def do_PATCH(self) -> None:
        self._handle(self._patch)

    def _handle(self, action: t.Callable[[list[str], Item], tuple[int, t.Any]]) -> None:
        address = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"detail": "Authentication credentials were not provided."})
            return
        parts = address.path.removeprefix("/api/v2/").strip("/").split("/")
        if self.command == "GET":
            body = dict(urllib.parse.parse_qsl(address.query))
        else:
            self.server.writes.append(Write(self.command, address.path, body))
        try:
            self._answer(*action(parts, body))
        except BadRequest as err:
            self._answer(400, {"__all__": [str(err)], "error": str(err)})
        except (KeyError, ValueError):
            self._answer(404, {"detail": f"Not found: {self.command} {self.path}"})

    def _answer(self, status: int, content: t.Any) -> None:
        text = b"" if status == 204 else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**PRODUCT, "Content-Type": "application/json", "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def _get(self, parts: list[str], query: Item) -> tuple[int, t.Any]:
        kind = parts[0]
        if len(parts) == 1:
            return 200, self._list(kind, query)
        if kind == "project_updates":
            return 200, {"id": int(parts[1]), "status": "successful"}
        number = int(parts[1])
        item = self.server.objects[kind][number]
        if len(parts) == 2:
            return 200, self.server.shown(kind, item)
        if parts[2] == "survey_spec":
            return 200, self.server.surveys.get((kind, number), {})
        other = ASSOCIATIONS[kind][parts[2]]
        numbers = self.server.associated.get((kind, number, parts[2]), [])
        return 200, _page([self.server.shown(other, self.server.objects[other][one]) for one in numbers])

    def _list(self, kind: str, query: Item) -> Item:
        items = self.server.unified() if kind == "unified_job_templates" else list(self.server.objects[kind].values())
        wanted = {name: value for name, value in query.items() if value != "None"}
        found = [item for item in items if all(str(item.get(name)) == value for name, value in wanted.items())]
        kinds = [item["url"].split("/")[3] for item in found]
        return _page([self.server.shown(one, item) for one, item in zip(kinds, found, strict=True)])

    def _post(self, parts: list[str], body: Item) -> tuple[int, t.Any]:
        kind = parts[0]
        if len(parts) == 1:
            item = self.server.shown(kind, self.server.add(kind, body))
            if kind == "projects":
                item["summary_fields"] = {"current_update": {"id": 1}}
            return 201, item
        number = int(parts[1])
        item = self.server.objects[kind][number]
        if parts[2] == "survey_spec":
            problem = survey_problem(body)
            if problem:
                raise BadRequest(problem)
            self.server.surveys[kind, number] = body
            return 200, {}
        if parts[2] == "create_approval_template":
            approval = self.server.add("workflow_approval_templates", body)
            item["unified_job_template"] = approval["id"]
            return 201, self.server.shown("workflow_approval_templates", approval)
        other = ASSOCIATIONS[kind][parts[2]]
        numbers = self.server.associated.setdefault((kind, number, parts[2]), [])
        if body.get("disassociate"):
            numbers.remove(body["id"])
        else:
            self._judge_link(kind, number, body["id"])
            numbers.append(self.server.objects[other][body["id"]]["id"])
        return 204, None

    def _judge_link(self, kind: str, number: int, child: int) -> None:
        """Two nodes have one link at the most (awx/api/views, WorkflowJobTemplateNodeChildrenBaseList)."""
        if kind == "workflow_job_template_nodes":
            linked = [self.server.associated.get((kind, number, link), []) for link in ASSOCIATIONS[kind]]
            if any(child in children for children in linked):
                raise BadRequest("Relationship not allowed.")

    def _patch(self, parts: list[str], body: Item) -> tuple[int, t.Any]:
        kind, number = parts[0], int(parts[1])
        item = self.server.objects[kind][number]
        self.server.judge(kind, {**item, **body}, item)
        return 200, self.server.shown(kind, self.server.change(kind, item, body))

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 (the name of the base class)
        """Nothing is logged."""


def _page(items: list[Item]) -> Item:
    return {"count": len(items), "next": None, "previous": None, "results": items}
