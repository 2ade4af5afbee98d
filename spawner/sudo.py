"""What root inside a container may do, where an environment or the centre gives sudo.

Enough for sudo and for package managers: they change owners, write files of others, drop to accounts of their own and
run what is root's. None of it reaches the machine's network, devices, kernel or other people's files; nobody has it
without becoming root first, which needs an image with sudo. It is within Kubernetes' Pod Security *baseline*.
"""

ROOT_INSIDE = ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
