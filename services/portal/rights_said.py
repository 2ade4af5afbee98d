"""What each right lets somebody do, in a few words (AP-36)."""

from __future__ import annotations

from galilean.errors import mark

RIGHT_WORDS: dict[str, str] = {
    "clusters:read-all": mark("See everybody’s clusters"),
    "clusters:release-all": mark("Release everybody’s clusters"),
    "usage:read-all": mark("See everybody’s machine time"),
    "people:manage": mark("Make, block and delete accounts, give roles"),
    "groups:manage": mark("Make groups and decide who is in them"),
    "roles:manage": mark("Make roles and decide what they allow"),
    "quotas:manage": mark("Decide what roles and people may hold"),
    "release:manage": mark("Decide when clusters go back"),
    "projects:manage": mark("See, change, hide and delete everybody’s projects"),
    "datasets:manage": mark("See, change, hide and delete everybody’s data sets"),
    "environments:manage": mark("Make, change, retire and delete everybody’s environments"),
    "volumes:manage": mark("Register, drain and delete volumes"),
    "machines:manage": mark("Look at machines, add and take them out"),
    "site:manage": mark("Write the home page and messages to everybody"),
    "audit:read": mark("Read the audit log"),
}
