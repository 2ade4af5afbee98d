"""People: who has an account, who waits for a role, and who gives it."""
