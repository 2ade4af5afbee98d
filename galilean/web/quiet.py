"""What JupyterHub's library says in passing and nobody should read: the ids behind the cookies of forms."""

from __future__ import annotations

import logging

from tornado.log import app_log


def hide_form_ids() -> None:
    """Keep these lines out of this process's log; warnings about refused forms stay."""
    app_log.addFilter(_may_be_said)


def _may_be_said(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or "xsrf" not in str(record.msg).lower()
