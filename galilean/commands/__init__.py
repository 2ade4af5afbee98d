"""Commands that need the ground floor only; each module's ``register`` is an entry point."""
