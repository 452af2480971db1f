"""The web application: label-studio-ml's routes behind a guard, and the routes it lacks."""

from __future__ import annotations

import hmac
import logging

import label_studio_ml.api
from flask import Flask, Response, jsonify, request

from ml_backend.journal import now
from ml_backend.model import AkuModel, Manager
from ml_backend.service import Service

logger = logging.getLogger("ml_backend")


def create_app(service: Service, secrets: dict[str, str]) -> Flask:
    """Return label-studio-ml's Flask application, serving `service`.  Once per process."""
    label_studio_ml.api._manager = Manager(service)
    app: Flask = label_studio_ml.api.init_app(AkuModel)
    app.config["MAX_CONTENT_LENGTH"] = service.settings.max_body_mb * 2**20
    logging.getLogger("label_studio_ml").setLevel(logging.WARNING)  # it logs bodies, tokens included, when told to
    user, password = secrets["BACKEND_USER"], secrets["BACKEND_PASSWORD"]
    webhook_secret = secrets["WEBHOOK_SECRET"]

    def signed_in() -> bool:
        given = request.authorization
        return (
            given is not None
            and given.type == "basic"
            and hmac.compare_digest((given.username or "").encode(), user.encode())
            and hmac.compare_digest((given.password or "").encode(), password.encode())
        )

    def knows_secret() -> bool:
        given = request.headers.get("X-Webhook-Secret") or (request.view_args or {}).get("secret") or ""
        return hmac.compare_digest(given.encode(), webhook_secret.encode())

    @app.before_request
    def guard() -> Response | tuple[Response, int] | None:
        """Let in only who may; refuse bodies that are no JSON object before any view sees them."""
        if request.path == "/health" and request.authorization is None:
            return None  # a supervisor may ask whether we live; wrong credentials are still told so
        webhook = request.path == "/webhook" or request.path.startswith("/webhook/")
        if not signed_in() and not (webhook and knows_secret()):
            answer = jsonify(error="sign in")
            answer.headers["WWW-Authenticate"] = 'Basic realm="ml_backend"'
            return answer, 401
        if request.method == "POST":
            body = request.get_json(silent=True)
            if not isinstance(body, dict):
                return jsonify(error="the body must be a JSON object"), 400
        return None

    def predict() -> Response:
        body = request.get_json()
        tasks = body.get("tasks")
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        rows, model = label_studio_ml.api._manager.predict(
            tasks if isinstance(tasks, list) else [], body.get("project"), context=context
        )
        return jsonify(results=rows, model_version=model.model_version)

    def setup() -> Response:
        return jsonify(
            model_version=label_studio_ml.api._manager.fetch(request.get_json().get("project")).model_version
        )

    def health() -> Response:
        return jsonify(status="UP")

    def webhook(secret: str = "") -> tuple[Response, int]:
        body = request.get_json()
        service.webhooks.append({"action": body.get("action"), "at": now()})
        return jsonify(job="") if body.get("action") == "START_TRAINING" else jsonify({}), 201

    app.view_functions |= {"_predict": predict, "_setup": setup, "health": health, "webhook": webhook}
    app.add_url_rule("/webhook/<secret>", "webhook", webhook, methods=["POST"])

    @app.get("/versions")
    def versions() -> Response:
        return jsonify(versions=[service.version()])

    @app.after_request
    def quiet(answer: Response) -> Response:
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return app
