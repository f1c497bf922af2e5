"""Stored passwords: whether a hash is one, and whether it is of use where it stands. Nothing of it is ever said."""

from __future__ import annotations

import re

from proxy.auth import scram

_VERIFIER = scram.MECHANISM + "$"
_MD5 = re.compile(r"md5[0-9a-f]{32}", re.ASCII)
# What somebody must have meant as a hash: that much of it is no word.
_MEANT_AS_MD5 = re.compile(r"md5(.{32}|[0-9a-fA-F]{20,})", re.ASCII | re.DOTALL)


def malformed(password: str) -> str:
    """What is wrong with a password that looks like a hash and is none; "" if nothing is."""
    if password.startswith(_VERIFIER):
        try:
            scram.read_verifier(password)
        except ValueError:
            return (
                f"begins as a {scram.MECHANISM} verifier and is none; PostgreSQL writes them as"
                f" {_VERIFIER}<iterations>:<salt>$<StoredKey>:<ServerKey>"
            )
    elif _MEANT_AS_MD5.fullmatch(password) and not _MD5.fullmatch(password):
        return 'begins as an md5 hash and is none; 32 hexadecimal digits in lower case follow "md5"'
    return ""


def useless(password: str, auth_type: str) -> str:
    """Why no client can log in with what is stored."""
    if auth_type == "scram-sha-256" and _MD5.fullmatch(password):
        return (
            f"is an md5 hash, of which auth_type {auth_type} can make nothing; give the password itself,"
            " a verifier, or auth_type md5"
        )
    return ""


def useless_for_server(password: str) -> str:
    """Why no server can be logged in to with it."""
    if password.startswith(_VERIFIER):
        return "is a verifier, which proves nothing to a server; give the password itself"
    return ""
