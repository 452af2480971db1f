"""The web application: label-studio-ml's routes behind a guard, and the routes it lacks."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from ml_backend import library
from ml_backend.errors import RecentErrors
from ml_backend.metrics import REQUESTS, exposition
from ml_backend.model import AkuModel, Manager
from ml_backend.page import status_page
from ml_backend.service import Service

logger = logging.getLogger("ml_backend")


def create_app(service: Service, secrets: Mapping[str, str]) -> Flask:
    """Return label-studio-ml's Flask application, serving `service`.  Once per process.

    The library reads and answers requests in ways that a malformed body turns into a 500, so its
    view functions are replaced; its model class and manager do the work.
    """
    manager = library.api._manager = Manager(service)
    app: Flask = library.api.init_app(AkuModel)
    app.config["MAX_CONTENT_LENGTH"] = service.settings.max_body_mb * 2**20
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # Japanese text, half the bytes
    logging.getLogger("label_studio_ml").setLevel(logging.WARNING)  # it logs bodies, tokens included, when told to
    _guard(app, secrets)
    recent = RecentErrors.attached()

    def predict() -> Response:
        body = request.get_json()
        tasks, params = body.get("tasks"), body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        rows, model = manager.predict(tasks if isinstance(tasks, list) else [], body.get("project"), context=context)
        versions = {row["model_version"] for row in rows if row}
        return jsonify(results=rows, model_version=versions.pop() if len(versions) == 1 else model.model_version)

    def setup() -> Response:
        return jsonify(model_version=manager.fetch(request.get_json().get("project")).model_version)

    def health() -> Response:
        if request.path == "/":
            return Response(status_page(state()), mimetype="text/html")
        return jsonify(status="UP")

    def webhook(secret: str = "") -> tuple[Response, int]:
        body = request.get_json()
        manager.webhook(str(body.get("action") or ""), body)
        # Label Studio expects a job for its Start training button; training is `aku train`, not ours.
        return jsonify({"job": None} if body.get("action") == "START_TRAINING" else {}), 201

    def train() -> tuple[Response, int]:
        return jsonify(error="training is done by `aku train`"), 410

    def is_training() -> Response:
        return jsonify(is_training=False)

    def versions() -> Response:
        return jsonify(versions=[service.version()])

    def state() -> dict[str, Any]:
        version = service.version()
        gate = service.serving.gate()
        engine = service.client.status()
        errors = [*recent.list(), *(engine or {}).get("errors", ())]
        return {
            "version": version,
            "current": gate.id if gate else None,
            "gate_open": bool(gate and gate.may_draft),
            "engine": engine,
            "errors": sorted(errors, key=lambda error: str(error["at"]))[-20:],
        }

    def metrics() -> Response:
        gate = service.serving.gate()
        return Response(exposition(service.client.status(), bool(gate and gate.may_draft)), mimetype="text/plain")

    replaced: dict[str, Callable[..., Any]] = {
        "_predict": predict,
        "_setup": setup,
        "health": health,
        "webhook": webhook,
        "metrics": metrics,
    }
    replaced |= {"get_version": versions, "_train": train, "_is_training": is_training}
    for name, view in replaced.items():
        if name in app.view_functions:  # 2.x has fewer routes
            app.view_functions[name] = view
    app.add_url_rule("/webhook/<secret>", "webhook_secret", webhook, methods=["POST"])
    app.add_url_rule("/versions", "versions", versions, methods=["GET"])
    app.add_url_rule("/status", "status", lambda: jsonify(state()), methods=["GET"])
    return app


def _guard(app: Flask, secrets: Mapping[str, str]) -> None:
    """Let in only who may, refuse what is no JSON object, count everything, and never answer with a traceback."""
    user, password = secrets["BACKEND_USER"].encode(), secrets["BACKEND_PASSWORD"].encode()
    webhook_secret = secrets["WEBHOOK_SECRET"].encode()

    def signed_in() -> bool:
        given = request.authorization
        if given is None or given.type != "basic":
            return False
        right_user = hmac.compare_digest((given.username or "").encode(), user)
        return hmac.compare_digest((given.password or "").encode(), password) and right_user

    def knows_secret() -> bool:
        if not request.path.startswith("/webhook"):
            return False
        given = request.headers.get("X-Webhook-Secret") or (request.view_args or {}).get("secret") or ""
        return hmac.compare_digest(given.encode(), webhook_secret)

    def admit() -> Response | tuple[Response, int] | None:
        g.started = time.perf_counter()
        if request.path == "/health" and request.authorization is None:
            return None  # a supervisor may ask whether we live; wrong credentials are still told so
        if not signed_in() and not knows_secret():
            answer = jsonify(error="sign in")
            answer.headers["WWW-Authenticate"] = 'Basic realm="ml_backend"'
            return answer, 401
        if request.method == "POST" and not isinstance(request.get_json(silent=True), dict):
            return jsonify(error="the body must be a JSON object"), 400
        return None

    def count(answer: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "other"
        REQUESTS.labels(route, str(answer.status_code)).observe(time.perf_counter() - g.get("started", 0.0))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def refuse(error: Exception) -> tuple[Response, int]:
        if isinstance(error, HTTPException):
            return jsonify(error=error.name), error.code or 500
        logger.error("%s %s failed: %s", request.method, request.url_rule, type(error).__name__)
        return jsonify(error="internal error"), 500

    app.before_request_funcs.setdefault(None, []).insert(0, admit)
    app.after_request_funcs[None] = [count]  # in place of the library's, which logs bodies
    app.register_error_handler(Exception, refuse)
