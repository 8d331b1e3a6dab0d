"""Logs: one stream on stderr for structlog and for the libraries' logging, readable or JSON, without secrets.

Called once at the start of a process, never on import.
"""

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from catalog.settings import Settings

# A URL's password, and our API keys wherever they turn up.
_SECRETS = (
    (re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+(?=@)", re.IGNORECASE), r"\g<before>***"),
    (re.compile(r"tsk_[A-Za-z0-9_-]{8,}"), "tsk_***"),
)


def configure_logging(settings: Settings) -> None:
    """Sets up the logs of this process."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: list[Processor]
    if settings.log_json:
        last = [structlog.processors.format_exc_info, hide_secrets, structlog.processors.JSONRenderer()]
    else:
        last = [
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)  # else they are lines of another form


def hide_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replaces passwords in URLs and API keys in every text of the event."""
    return {name: _hide(value) if isinstance(value, str) else value for name, value in event.items()}


def _hide(value: str) -> str:
    for pattern, replacement in _SECRETS:
        value = pattern.sub(replacement, value)
    return value
