"""What people's programs find in every node (CG-6): ``torchrun`` variables, the host file, MPI's settings."""

from __future__ import annotations

from spawner.node.place import HOSTFILE, Place, node_name


def parallel_variables(
    place: Place, *, master_address: str, master_port: int, hostfile: str
) -> dict[str, str]:
    """Variables for parallel programs: ``torchrun`` reads them, Open MPI finds the host file without options."""
    return {
        "MASTER_ADDR": master_address,
        "MASTER_PORT": str(master_port),
        "NNODES": str(place.nodes),
        "NODE_RANK": str(place.rank),
        # torchrun takes its options from these when it is started without any.
        "PET_MASTER_ADDR": master_address,
        "PET_MASTER_PORT": str(master_port),
        "PET_NNODES": str(place.nodes),
        "PET_NODE_RANK": str(place.rank),
        HOSTFILE: hostfile,
        # MPI looks for graphics cards on every screen of a node, and is told by a desktop that this is not its own.
        "HWLOC_COMPONENTS": "-gl",
        "OMPI_MCA_orte_default_hostfile": hostfile,
        "PRTE_MCA_prte_default_hostfile": hostfile,
    }


def shared_host_variables() -> dict[str, str]:
    """Open MPI's cures for nodes that share one machine. Never set these on machines of their own.

    Without them two nodes bind to the same core (milliseconds instead of microseconds), refuse more
    processes than cores, and may talk over the wrong interface.
    """
    return {
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl_tcp_if_include": "127.0.0.0/8",
        "OMPI_MCA_oob_tcp_if_include": "127.0.0.0/8",
    }


#: ``galilean-hosts``: the nodes by their names for loops in a shell, or with their slots as ``mpirun`` and others want.
HOSTS_PROGRAM = """#!/bin/sh
# The nodes of this cluster, one on a line.
case "${1:-}" in
  "") cut -d" " -f1 "$GALILEAN_HOSTFILE" ;;
  --slots) cat "$GALILEAN_HOSTFILE" ;;
  --others) grep -v "^node-$GALILEAN_RANK " "$GALILEAN_HOSTFILE" | cut -d" " -f1 ;;
  --comma) cut -d" " -f1 "$GALILEAN_HOSTFILE" | paste -sd, ;;
  *) echo "galilean-hosts [--slots | --others | --comma]: the nodes of this cluster; all but this one; in one line" >&2
     [ "$1" = --help ] ;;
esac
"""


def host_file(nodes: int, cpu_millicores: int) -> str:
    """One line per node, with as many slots as it has whole CPUs, at least one."""
    slots = max(1, cpu_millicores // 1000)
    return "".join(f"{node_name(rank)} slots={slots}\n" for rank in range(nodes))
