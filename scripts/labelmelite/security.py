"""Who somebody is and what they may do: tokens, sessions, roles, where requests come from, what browsers are told."""

import hashlib
import hmac
import json
import secrets
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request

from labelmelite.errors import ApiError
from labelmelite.settings import MTURK_HOSTS, Settings
from labelmelite.store import Store, keep, setting

CSRF: Final = "x-labelmelite"
ROLES: Final = ("reader", "annotator", "owner")
"""From the least to the most that a person may do."""

DAY: Final = 86400.0


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in.

    Attributes
    ----------
    id
        What answers and events hold; never a name.
    role
        One of `ROLES`.
    adapter
        How this person came in.
    crowd
        What the platform said of this submission.
    csrf
        What requests that change something must repeat.
    """

    id: str
    role: str
    adapter: str
    csrf: str
    crowd: dict[str, Any] = field(default_factory=dict)
    session: str = ""

    @property
    def preview(self) -> bool:
        """Whether this is somebody who only looks at a task before accepting it."""
        return bool(self.crowd.get("preview"))

    def may(self, role: str) -> bool:
        """Return whether this person has a role, or one above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Visitor:
    """Whom a platform sends.

    Attributes
    ----------
    id
        The platform's name of the person; only its hash is kept.
    kept
        What the session keeps: the submission, and whether it is a preview.
    """

    id: str
    kept: dict[str, Any]


def require(request: Request, role: str) -> Person:
    """Return who sent a request.

    Raises
    ------
    ApiError
        `sign_in` if nobody is signed in, `forbidden` if the role is too low.
    """
    person: Person | None = request.state.person
    if person is None:
        raise ApiError("sign_in", "Open the link that you were given, or ask for a new one: nobody is signed in here.")
    if not person.may(role):
        raise ApiError("forbidden", f"This needs the role {role}; yours is {person.role}.")
    return person


def new_token() -> str:
    """Return 32 random bytes as text."""
    return secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """Return what is kept of a token. It is random and long, so that a plain hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_of(token: str) -> str:
    """Return the text that pages repeat in a header; scripts of other origins cannot read it."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()[:32]


class Guard:
    """Sessions and invites in the store.

    Sessions are read on every request; they are kept in memory for some seconds, and a revoked one is dropped at once.
    """

    _MEMORY: Final = 20.0

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.salt: str = store.write_now(_salt)
        # Browsers send a cookie to every port of a machine: under one name, servers would sign each other's people out.
        # The database names it, not the port, so that a session outlives a restart on another port.
        self.cookie: Final = f"labelmelite-{hashed(self.salt)[:12]}"
        self._known: dict[str, tuple[float, Person]] = {}
        self._nobody = store.write_now(self._host_owner) if not settings.tokens else None

    async def person(self, request: Request) -> Person | None:
        """Return who a request is from."""
        token = self._token(request)
        if token is None:
            return self._nobody
        if len(token) > 200:
            return None
        known = self._known.get(hashed(token))
        if known is not None and time.monotonic() - known[0] < self._MEMORY:
            return known[1]
        found: Person | None = await self.store.read(lambda connection: self._session(connection, token))
        if found is not None:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[found.session] = (time.monotonic(), found)
        return found or self._nobody

    def check_origin(self, request: Request, person: Person | None) -> None:
        """Refuse a change that another site's page asks for."""
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none") or (origin is not None and not self._own(origin, request)):
            raise ApiError("forbidden", "This request comes from another site and was refused.")
        # Whoever opens a link does not know the text of a session that this browser has already. Another site's script
        # can send no JSON here, and a request that shows where it comes from was judged above.
        if person is None or (request.method, request.scope["path"]) == ("POST", "/api/session"):
            return
        if not hmac.compare_digest(request.headers.get(CSRF, "").encode(), person.csrf.encode()):
            raise ApiError("stale", "Somebody has signed in anew in this browser. Reload this page.")

    def check_host(self, request: Request) -> None:
        """Refuse a name that is not the server's: a foreign name that leads here could read for its owner."""
        given = request.headers.get("host", "")
        name = (_split(f"//{given}").hostname or "").lower()
        allowed = {"127.0.0.1", "localhost", "::1", self.settings.host.lower()}
        if self.settings.public is not None:
            allowed.add((urlsplit(self.settings.public).hostname or "").lower())
        if self.settings.host not in ("0.0.0.0", "::") and name not in allowed:
            raise ApiError("forbidden", f"This server does not answer to the name {name!r}. Start it with --public.")

    def _own(self, origin: str, request: Request) -> bool:
        # Names of machines are the same in small and capital letters.
        origin = origin.lower()
        if self.settings.public is not None and origin == self.settings.public.rstrip("/").lower():
            return True
        return _split(origin).netloc == request.headers.get("host", "").lower()

    def _token(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return request.cookies.get(self.cookie)

    # --- signing in

    def invite(
        self, connection: sqlite3.Connection, name: str, role: str, days: float, kind: str = "lab"
    ) -> dict[str, Any]:
        """Make an invite and return it with its token, which is shown this once.

        Parameters
        ----------
        kind
            `lab`: for one person, once. `study`, `mturk`: for everybody whom the platform sends.
        """
        token, number, now = new_token(), secrets.token_hex(8), self.store.clock.now()
        connection.execute(
            "INSERT INTO invite (id, hash, name, role, kind, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, hashed(token), name, role, kind, now, now + days * DAY),
        )
        return {"id": number, "token": token}

    def invite_owner(self, connection: sqlite3.Connection) -> str:
        """Return a new token for the person who starts the server."""
        identity = owner(connection, self.store.clock.now())
        made = self.invite(connection, "owner", "owner", days=1)
        connection.execute("UPDATE invite SET annotator = ? WHERE id = ?", (identity, made["id"]))
        return str(made["token"])

    def kind_of(self, connection: sqlite3.Connection, token: str) -> str:
        """Return for whom a token's invite is: `lab`, `study` or `mturk`."""
        row = connection.execute("SELECT kind FROM invite WHERE hash = ?", (hashed(token),)).fetchone()
        if row is None:
            raise ApiError("sign_in", "This link is not valid. Ask for a new one.")
        return str(row["kind"])

    def redeem(self, connection: sqlite3.Connection, token: str, crowd: Visitor | None = None) -> tuple[str, Person]:
        """Exchange an invite's token for a session; return the session's token and the person.

        Parameters
        ----------
        crowd
            Whom the platform sends, for links of platforms.

        Raises
        ------
        ApiError
            `sign_in` if the token is unknown, `gone` if it was used, revoked, or is too old.
        """
        row = connection.execute("SELECT * FROM invite WHERE hash = ?", (hashed(token),)).fetchone()
        now = self.store.clock.now()
        if row is None:
            raise ApiError("sign_in", "This link is not valid. Ask for a new one.")
        if row["revoked"] is not None or row["expires"] < now:
            raise ApiError("gone", "This link has ended. Ask for a new one.")
        if row["kind"] != "lab":
            if crowd is None:
                raise ApiError("bad_request", "The platform did not say who you are. Open its own link.")
            identity = self.outside(connection, row["kind"], crowd)
            return self.open_session(connection, identity, row["id"], {"adapter": row["kind"], **crowd.kept})
        if row["used"] is not None:
            raise ApiError("gone", "This link was used before. Ask for a new one.")
        annotator = row["annotator"] or new_annotator(connection, row["role"], "lab", now, name=row["name"])
        # From here on the name stands in its own table alone.
        connection.execute(
            "UPDATE invite SET used = ?, annotator = ?, name = '' WHERE id = ?", (now, annotator, row["id"])
        )
        return self.open_session(connection, annotator, row["id"])

    def open_session(
        self,
        connection: sqlite3.Connection,
        annotator: str,
        invite: str | None = None,
        crowd: dict[str, Any] | None = None,
    ) -> tuple[str, Person]:
        """Begin a session of an annotator; return its token and the person."""
        token, now = new_token(), self.store.clock.now()
        connection.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?)",
            (hashed(token), annotator, invite, json.dumps(crowd or {}), now, now + self.settings.session_days * DAY),
        )
        person = self._session(connection, token)
        assert person is not None
        return token, person

    def close_session(self, connection: sqlite3.Connection, person: Person) -> None:
        """End a session."""
        connection.execute("DELETE FROM session WHERE hash = ?", (person.session,))

    def revoke(self, connection: sqlite3.Connection, invite: str) -> None:
        """End an invite and every session that it began."""
        changed = connection.execute(
            "UPDATE invite SET revoked = ? WHERE id = ? AND revoked IS NULL", (self.store.clock.now(), invite)
        )
        if changed.rowcount == 0:
            raise ApiError("not_found", "There is no such invite.")
        connection.execute("DELETE FROM session WHERE invite = ?", (invite,))

    def look_again(self) -> None:
        """Ask the store about every session again; for when one was ended."""
        self._known.clear()

    def outside(self, connection: sqlite3.Connection, adapter: str, visitor: Visitor) -> str:
        """Return the annotator behind a platform's id, of which only a salted hash is kept."""
        digest = hmac.new(self.salt.encode(), f"{adapter}\x1f{visitor.id}".encode(), hashlib.sha256).hexdigest()
        row = connection.execute("SELECT id FROM annotator WHERE outside = ?", (digest,)).fetchone()
        if row is not None:
            return str(row["id"])
        role = "reader" if visitor.kept.get("preview") else "annotator"
        return new_annotator(connection, role, adapter, self.store.clock.now(), outside=digest)

    def _session(self, connection: sqlite3.Connection, token: str) -> Person | None:
        row = connection.execute(
            "SELECT session.*, role, adapter FROM session JOIN annotator ON annotator.id = annotator WHERE hash = ?",
            (hashed(token),),
        ).fetchone()
        if row is None or row["expires"] < self.store.clock.now():
            return None
        crowd = json.loads(row["crowd"])
        return Person(row["annotator"], row["role"], row["adapter"], csrf_of(token), crowd, session=row["hash"])

    def _host_owner(self, connection: sqlite3.Connection) -> Person:
        identity = owner(connection, self.store.clock.now())
        return Person(identity, "owner", "lab", csrf_of(self.salt))


def owner(connection: sqlite3.Connection, now: float) -> str:
    """Return the id of the person who started the server, made with the database."""
    known: str | None = setting(connection, "owner")
    if known is None:
        known = new_annotator(connection, "owner", "lab", now, name="owner")
        keep(connection, "owner", known)
    return known


def new_annotator(
    connection: sqlite3.Connection, role: str, adapter: str, now: float, *, name: str = "", outside: str | None = None
) -> str:
    """Put down a new person and return the random id that answers hold."""
    identity = secrets.token_hex(6)
    connection.execute(
        "INSERT INTO annotator (id, role, adapter, outside, created) VALUES (?, ?, ?, ?, ?)",
        (identity, role, adapter, outside, now),
    )
    if name:
        connection.execute("INSERT INTO name VALUES (?, ?)", (identity, name))
    return identity


def headers(settings: Settings) -> dict[str, str]:
    """Return what browsers are told with every response."""
    frames = (*settings.frame_hosts, *(MTURK_HOSTS if settings.adapter == "mturk" else ()))
    forms = (*settings.submit_hosts, *(MTURK_HOSTS if settings.adapter == "mturk" else ()))
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "worker-src": "'self'",
        "font-src": "'self'",
        "manifest-src": "'self'",
        "form-action": " ".join(("'self'", *forms)),
        "frame-ancestors": " ".join(frames) if frames else "'none'",
        "base-uri": "'none'",
        "object-src": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        **({} if frames else {"X-Frame-Options": "DENY"}),
    }


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # brackets without an address in them
        return urlsplit("")


def _salt(connection: sqlite3.Connection) -> str:
    known: str | None = setting(connection, "salt")
    if known is None:
        known = secrets.token_hex(16)
        keep(connection, "salt", known)
    return known
