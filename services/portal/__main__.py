"""``python -m services.portal``: the portal as a process of its own."""

from services.portal.app import main

main()
