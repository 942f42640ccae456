"""API keys: a TOML file of digests, names and scopes; the keys themselves are nowhere."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from l2d.artifacts import atomic_file
from l2d.errors import ConfigError, DataError
from l2d.serve.errors import Refused

Scope = Literal["read", "write", "audit"]
SCOPES: tuple[str, ...] = get_args(Scope)
WITHOUT_KEYS = frozenset({"read", "write"})
"""What everybody on this machine may do where there are no keys; `audit` names users and always needs a key."""

PREFIX = "l2d_"
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Key:
    """What is known of a key.

    Args:
        name: whose it is.
        digest: SHA-256 of it, in hexadecimal.
        scopes: what it may do.
    """

    name: str
    digest: str
    scopes: frozenset[str]


ANYBODY = Key("", "", WITHOUT_KEYS)


class Keyring:
    """The keys of a server.

    Args:
        keys: them; none lets everybody in who reaches the server.
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self.keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def holder(self, authorization: str | None) -> Key:
        """The key of a request's `Authorization` header.

        Raises:
            Refused: 401 without a known key.
        """
        if not self.keys:
            return ANYBODY
        scheme, _, presented = (authorization or "").partition(" ")
        digest = hashlib.sha256(presented.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self.keys:  # all of them, whichever fits: the time must not tell how far one came
            if hmac.compare_digest(key.digest, digest):
                found = key
        if scheme.lower() != "bearer" or found is None:
            raise Refused(
                401, "a key is needed", expected="Authorization: Bearer KEY", cure="ask the operator for a key",
                reason="key",
            )  # fmt: skip
        return found


def check_scope(key: Key, scope: str) -> None:
    """Refuses what a key may not do.

    Raises:
        Refused: 401 where a key could help, 403 where the given one does not.
    """
    if scope in key.scopes:
        return
    if key is ANYBODY:
        raise Refused(403, f"this needs a key with the scope {scope}", cure="start the server with keys", reason="key")
    raise Refused(403, f"this needs the scope {scope}", got=", ".join(sorted(key.scopes)), reason="key")


def read_keys(path: Path) -> Keyring:
    """Reads a file of keys.

    Raises:
        DataError: it is not one, or holds none.
    """
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError("the keys cannot be read", got=error, file=path, cure="make it with `l2d keys add`") from error
    listed = record.get("keys")
    if not isinstance(listed, list) or not listed:
        raise DataError("there are no keys", file=path, cure="make one with `l2d keys add`")
    keys = [_checked(entry, path) for entry in listed]
    if len({key.name for key in keys}) < len(keys):
        raise DataError("two keys have one name", file=path, cure="rename one")
    return Keyring(keys)


def _checked(entry: object, path: Path) -> Key:
    if not isinstance(entry, dict):
        raise DataError("a key is no table", got=repr(entry), file=path)
    name, digest, scopes = entry.get("name"), entry.get("sha256"), entry.get("scopes")
    if not isinstance(name, str) or not name:
        raise DataError("a key has no name", got=repr(name), file=path)
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise DataError("a key has no SHA-256 digest", got=name, expected="64 hexadecimal digits", file=path)
    if not isinstance(scopes, list) or not scopes or not all(scope in SCOPES for scope in scopes):
        raise DataError(f"key {name!r} has no such scopes", got=scopes, expected=", ".join(SCOPES), file=path)
    return Key(name, digest, frozenset(scopes))


def add_key(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Makes a key and writes its digest into a file that only its owner may read.

    Args:
        path: the file; made where it is not there.
        name: whose key it is.
        scopes: what it may do.

    Returns:
        The key, which is kept nowhere.

    Raises:
        ConfigError: the name is taken, or there is no such scope.
        DataError: the file is no file of keys.
    """
    if not name.strip() or not name.isprintable():
        raise ConfigError("a key needs a name", got=repr(name))
    if not scopes or not all(scope in SCOPES for scope in scopes):
        raise ConfigError("no such scope", got=", ".join(scopes) or "none", expected=", ".join(SCOPES))
    keys = list(read_keys(path).keys) if path.exists() else []
    if any(key.name == name for key in keys):
        raise ConfigError("the name is taken", got=name, cure="choose another, or delete the old key from the file")
    key = PREFIX + secrets.token_urlsafe(32)
    keys.append(Key(name, hashlib.sha256(key.encode()).hexdigest(), frozenset(scopes)))
    with atomic_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(_table(one) for one in keys))
        os.chmod(temporary, 0o600)
    return key


def _table(key: Key) -> str:
    # A JSON string is a TOML string, too.
    scopes = ", ".join(json.dumps(scope) for scope in SCOPES if scope in key.scopes)
    return (
        f'[[keys]]\nname = {json.dumps(key.name, ensure_ascii=False)}\nsha256 = "{key.digest}"\nscopes = [{scopes}]\n'
    )
