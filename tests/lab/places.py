"""Names and addresses of the lab; its pods' network has room below for the machines themselves."""

from __future__ import annotations

from pathlib import Path

LOCK = Path("/run/galilean-lab.lock")
BRIDGE = "galilean-lab0"
NETWORK = "galilean-lab"
GATEWAY = "10.222.0.1"
POD_SUBNET = "10.222.0.0/16"
FIRST_POD = "10.222.0.10"
SERVICE_SUBNET = "10.223.0.0/16"
SERVICE_GATEWAY = "10.223.0.1"
DNS_ADDRESS = "10.223.0.10"
#: The lab's own machine, and one that may join it.
MACHINE, SECOND = "lab-machine-0", "lab-machine-1"
MACHINES = (MACHINE, SECOND)
CGROUP = "galilean-lab"
PAUSE_IMAGE = "galilean.lab/pause:1"
DNS_IMAGE = "galilean.lab/coredns:1"
