"""Changes one account inside Label Studio's own code and database: `python -m aku.account`, a JSON object on stdin.

Label Studio's API can neither set a password nor shut somebody out: a removed member keeps their session and token.
`{"email": …, "password": …}` gives a new password and lets the person in (again); a null password shuts them out.
Ends with status 3 if there is no such account.  Used by `aku.deployment`, in a process of its own.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Read what is asked, and do it."""
    asked = json.load(sys.stdin)
    found = find_spec("label_studio")
    if found is None or found.origin is None:
        sys.exit("Label Studio is not installed here.")
    sys.path.insert(0, str(Path(found.origin).parent))
    os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"
    import django  # type: ignore[import-untyped]  # has no types

    django.setup()
    from django.utils import timezone  # type: ignore[import-untyped]  # has no types
    from organizations.models import OrganizationMember  # type: ignore[import-not-found]  # on the path only from here on
    from users.models import User  # type: ignore[import-not-found]  # on the path only from here on

    user = User.objects.filter(email=asked["email"]).first()
    if user is None:
        sys.exit(3)
    user.set_password(asked["password"])  # ends all sessions
    user.is_active = asked["password"] is not None  # an account that is not active can use no token either
    user.save(update_fields=["password", "is_active"])
    gone = None if user.is_active else timezone.now()
    OrganizationMember.objects.filter(user=user).update(deleted_at=gone)


if __name__ == "__main__":
    main()
