"""Machines and pools: what carries the nodes, how much of it is free, and putting machines in and out (CG-33).

A *machine* is a server that carries nodes, a *pool* is a named set of machines, told by labels (CG-2). The
service of this room looks at the machines every few seconds and writes what it saw into ``machines``. Pages,
forms and admission read that table, so that nobody but this service needs a right on machines. What an
administrator wants done stands in ``machine_orders``: the portal writes orders, the service carries them out
step by step, and each step may be repeated, so that a service that is killed in between goes on where it was.

- :mod:`services.machines.rules` decides, on plain data: what a machine's state is called, which machines a
  pool has, whether a request can ever fit, what the next step of an order is.
- :mod:`services.machines.store` reads and writes the rows.
- :mod:`services.machines.world` is what this room needs of a backend; :mod:`services.machines.host` (the
  process backend's one machine) and :mod:`services.machines.kube` are the two that exist.
- :mod:`services.machines.keeper` is the loop; :mod:`services.machines.room` tells admission what can never be.
"""
