"""What breaks in the simulated cluster: connections, gateways, supervisors, the Lease. Every fault heals in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.gateways import Gateway
from simulation.network import Connection

if TYPE_CHECKING:
    from simulation.cluster import Cluster


def strike(cluster: Cluster) -> None:
    """One fault of any kind, now."""
    kind = cluster.world.random.choice(
        (
            cut_link,
            cut_link,
            cut_link,
            stall_link,
            stall_link,
            cut_peer,
            stall_peer,
            kill_gateway,
            leave_gateway,
            partition_gateway,
            partition_supervisor,
            partition_peers,
            kill_supervisor,
            move_lease,
            kill_holder,
        )
    )
    kind(cluster)


def _links(cluster: Cluster) -> list[Connection]:
    return [connection for supervisor in cluster.supervisors for connection in supervisor.connections.values()]


def _peers(cluster: Cluster) -> list[Connection]:
    return [gateway.to_holder for gateway in cluster.gateways.values() if gateway.to_holder is not None]


def cut_link(cluster: Cluster) -> None:
    if links := _links(cluster):
        link = cluster.world.random.choice(links)
        cluster.world.log("fault", "cuts", link.name)
        link.cut(quickly=cluster.world.chance(0.4))


def stall_link(cluster: Cluster) -> None:
    if links := _links(cluster):
        link = cluster.world.random.choice(links)
        seconds = cluster.world.random.choice((0.01, 0.1, 0.5, 2.5))
        cluster.world.log("fault", "stalls", link.name, seconds)
        link.stall(seconds)


def cut_peer(cluster: Cluster) -> None:
    if peers := _peers(cluster):
        cluster.world.random.choice(peers).cut(quickly=cluster.world.chance(0.5))


def stall_peer(cluster: Cluster) -> None:
    if peers := _peers(cluster):
        cluster.world.random.choice(peers).stall(cluster.world.random.choice((0.01, 0.1, 0.5, 2.5)))


def kill_gateway(cluster: Cluster) -> None:
    alive = [gateway for gateway in cluster.gateways.values() if gateway.alive]
    if alive:
        _kill(cluster, cluster.world.random.choice(alive))


def kill_holder(cluster: Cluster) -> None:
    if cluster.holder is not None and cluster.holder.alive:
        _kill(cluster, cluster.holder)


def leave_gateway(cluster: Cluster) -> None:
    alive = [gateway for gateway in cluster.gateways.values() if gateway.alive]
    if len(alive) > 1:
        gateway = cluster.world.random.choice(alive)
        gateway.leave()
        cluster.world.after(cluster.world.random.uniform(0.1, 2), _kill_if_alive, cluster, gateway)


def _kill_if_alive(cluster: Cluster, gateway: Gateway) -> None:
    if gateway.alive:
        _kill(cluster, gateway)


def _kill(cluster: Cluster, gateway: Gateway) -> None:
    gateway.kill()
    cluster.world.after(cluster.world.random.uniform(0.05, 2), restart, cluster, gateway.address)
    if gateway is cluster.holder:
        cluster.world.after(cluster.world.random.uniform(0.2, 2), _lease_if_dead, cluster, gateway)


def _lease_if_dead(cluster: Cluster, gateway: Gateway) -> None:
    if cluster.holder is gateway:
        cluster.move_lease()


def restart(cluster: Cluster, address: str) -> None:
    if cluster.gateways[address].alive:
        return
    cluster.lives[address] += 1
    gateway = cluster.gateways[address] = Gateway(cluster, address, cluster.lives[address])
    cluster.world.log(gateway.name, "starts")
    if cluster.holder is None or not cluster.holder.alive:
        cluster.world.after(0.5, _lease_if_none, cluster)
    gateway.dial_holder()


def _lease_if_none(cluster: Cluster) -> None:
    if cluster.holder is None or not cluster.holder.alive:
        cluster.move_lease()


def partition_gateway(cluster: Cluster) -> None:
    address = cluster.world.random.choice(cluster.addresses)
    cluster.world.log("fault", "partitions supervisors from", address)
    cluster.partitions.add(("", address))
    for supervisor in cluster.supervisors:
        if address in supervisor.connections:
            supervisor.connections[address].cut()
    cluster.world.after(cluster.world.random.uniform(0.5, 4), cluster.partitions.discard, ("", address))


def partition_supervisor(cluster: Cluster) -> None:
    alive = [supervisor for supervisor in cluster.supervisors if supervisor.alive]
    if alive:
        supervisor = cluster.world.random.choice(alive)
        address = cluster.world.random.choice(cluster.addresses)
        cluster.world.log("fault", "partitions", supervisor.name, "from", address)
        cluster.partitions.add((supervisor.name, address))
        if address in supervisor.connections:
            supervisor.connections[address].cut()
        cluster.world.after(cluster.world.random.uniform(0.5, 4), cluster.partitions.discard, (supervisor.name, address))


def partition_peers(cluster: Cluster) -> None:
    address = cluster.world.random.choice(cluster.addresses)
    cluster.world.log("fault", "partitions", address, "from its peers")
    cluster.peer_partitions.add(address)
    for gateway in cluster.gateways.values():
        peer = gateway.to_holder
        if peer is not None and (
            gateway.address == address or (cluster.holder is not None and cluster.holder.address == address)
        ):
            peer.cut()
    if cluster.holder is not None and cluster.holder.address == address and cluster.world.chance(0.7):
        cluster.world.after(cluster.world.random.uniform(0.5, 2), cluster.move_lease)
    cluster.world.after(cluster.world.random.uniform(0.5, 4), cluster.peer_partitions.discard, address)


def kill_supervisor(cluster: Cluster) -> None:
    alive = [supervisor for supervisor in cluster.supervisors if supervisor.alive]
    if alive:
        cluster.world.random.choice(alive).kill()


def move_lease(cluster: Cluster) -> None:
    cluster.move_lease()


def heal(cluster: Cluster) -> None:
    """From now on nothing breaks, and what is broken works again within seconds."""
    cluster.world.log("heal")
    cluster.plan.active = False
    cluster.plan.duplicate_dials = 0.0
    cluster.partitions.clear()
    cluster.peer_partitions.clear()
