"""The image registry: a client for any OCI registry, and the rules of what it holds."""
