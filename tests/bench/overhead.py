"""``make bench-overhead``: what all three modules cost on the message path of stock Synapse.

Two homeservers run at the same time on one PostgreSQL that waits for the disk: stock, and the same with the modules,
their databases copies of one another. Blocks of messages go to them in turn, and a block's processor time counts
until its last record is sealed in the audit log, so that no work of the background hides in the other's block.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.figures import Benchmark, report
from tests.bench.processes import cpu_seconds, cpu_spent
from tests.support.governance import OPEN_POLICY, all_modules
from tests.support.postgres import Postgres
from tests.support.synapse import Deployment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.client import MatrixClient

BENCHMARK = Benchmark(
    name="overhead",
    title="Overhead on the message path",
    method="Stock Synapse and Synapse with all three modules, each one process, on one PostgreSQL with fsync; blocks "
    "of messages in turn, by one sender who waits for each answer (time and processor time) and by eight at once "
    "(messages per second). Processor time is that of the Synapse process and its PostgreSQL backends, until the last "
    "record of the block is sealed in the audit log.",
    meanings={
        "cpu_ratio_10": "processor time for a message, modules ÷ stock, room of 10 local members (goal ≤ 1.03)",
        "p50_ratio_10": "median time of a send, modules ÷ stock, room of 10 (goal ≤ 1.03)",
        "cpu_ratio_1000": "processor time for a message, modules ÷ stock, room of 1,000 (goal ≤ 1.03)",
        "p50_ratio_1000": "median time of a send, modules ÷ stock, room of 1,000 (goal ≤ 1.03)",
        "stock_per_s": "messages per second, eight senders, room of 10, stock",
        "ours_per_s": "the same with the modules",
        "stock_cpu_s_per_1000_10": "processor seconds for 1,000 messages, room of 10, stock",
        "ours_cpu_s_per_1000_10": "the same with the modules",
        "stock_cpu_s_per_1000_1000": "processor seconds for 1,000 messages, room of 1,000, stock",
        "ours_cpu_s_per_1000_1000": "the same with the modules",
        "stock_p50_ms_10": "median time of a send in ms, room of 10, stock",
        "ours_p50_ms_10": "the same with the modules",
        "stock_p99_ms_10": "99th percentile in ms, room of 10, stock",
        "ours_p99_ms_10": "the same with the modules",
        "stock_p50_ms_1000": "median time of a send in ms, room of 1,000, stock",
        "ours_p50_ms_1000": "the same with the modules",
        "stock_p99_ms_1000": "99th percentile in ms, room of 1,000, stock",
        "ours_p99_ms_1000": "the same with the modules",
    },
)

POLICY = {
    **OPEN_POLICY,
    # A rule that asks for the room's class, so that every message does.
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*"}}],
    "groups": {"externals": {"members": ["@guest:synapse.test"]}},
    "roles": {**OPEN_POLICY["roles"], "outsider": {"deny": ["room.join", "message.send"]}},
    "bindings": [*OPEN_POLICY["bindings"], {"role": "outsider", "group": "externals", "scope": "class:regulated"}],
}
SENDERS = 8


@dataclass(slots=True)
class Block:
    """What one block of messages took. ``times`` are seconds for each send; ``cpu`` is in seconds."""

    times: list[float] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0


@dataclass(slots=True)
class Side:
    """One of the two homeservers, and all its blocks by room size."""

    name: str
    server: Deployment
    postgres: Postgres
    sealed: bool
    blocks: dict[int, list[Block]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    sent: int = 0

    def pids(self) -> list[int]:
        """The Synapse process and every PostgreSQL backend that serves a client of its database."""
        rows = self.postgres.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'",
            (self.server.database,),
        )
        return [self.server.main.process.pid, *(pid for (pid,) in rows)]

    def settle(self) -> None:
        """Wait until the audit log has sealed every message sent so far; stock has nothing to wait for."""
        if self.sealed:
            wait_until(lambda: self._recorded() >= self.sent, timeout=60, what="the audit log has sealed all messages")

    def _recorded(self) -> int:
        rows = self.postgres.execute(
            "SELECT count(*) FROM governance_audit_entries WHERE action = 'message.send'", database=self.server.database
        )
        return int(rows[0][0])


def send_block(side: Side, user: MatrixClient, room_id: str, count: int, senders: int = 1) -> Block:
    """Send ``count`` messages by ``senders`` connections; each waits for its answer before it sends the next."""
    block, lock = Block(), threading.Lock()
    side.settle()
    pids = side.pids()
    before, started = cpu_seconds(pids), time.perf_counter()

    def sender(share: int) -> None:
        times = send_messages(side.server.main.url, user.token, room_id, share)
        with lock:
            block.times.extend(times)

    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(sender, [count // senders] * senders))
    block.wall = time.perf_counter() - started
    side.sent += len(block.times)
    side.settle()
    block.cpu = cpu_spent(before, cpu_seconds(pids))
    return block


def send_messages(url: str, token: str, room_id: str, count: int) -> list[float]:
    """Send over one kept connection and return the time of each send in seconds."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    times = []
    for _ in range(count):
        transaction = uuid.uuid4().hex
        path = f"/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{transaction}"
        # Two events alike in all they hold, made in the same millisecond, would be one event: no text is sent twice.
        body = f'{{"msgtype":"m.text","body":"a message of ordinary length {transaction}"}}'
        started = time.perf_counter()
        connection.request("PUT", path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        times.append(time.perf_counter() - started)
        if answer.status != 200:
            message = f"a send was answered {answer.status}: {text!r}"
            raise RuntimeError(message)
    connection.close()
    return times


def populate(server: Deployment, sizes: Sequence[int]) -> tuple[MatrixClient, dict[int, str]]:
    """One sender and a public room for each size, filled with local members; returns the sender and the rooms."""
    sender = server.register("sender")
    rooms = {size: sender.create_room(preset="public_chat").expect()["room_id"] for size in sizes}
    for number in range(1, max(sizes)):
        member = server.register(f"member{number}")
        for size in sizes:
            if number < size:
                member.join(rooms[size]).expect()
        if number % 100 == 0:
            print(f"bench: {number} of {max(sizes)} members", flush=True)
    return sender, rooms


def copy_with_modules(stock: Deployment, postgres: Postgres, folder: Path) -> Deployment:
    """A second homeserver on a copy of the stopped ``stock``'s database, with the same key, and all modules."""
    folder.mkdir(parents=True)
    ours = Deployment(folder, postgres=postgres, modules=all_modules(folder, POLICY))
    postgres.drop_database(ours.database)
    postgres.execute(f"CREATE DATABASE {ours.database} TEMPLATE {stock.database} STRATEGY file_copy")
    for database in (stock.database, ours.database):
        # What autovacuum still owes the one that was filled must not be paid while the two are compared.
        postgres.execute("VACUUM (ANALYZE)", database=database)
    (folder / "signing.key").write_text((stock.folder / "signing.key").read_text())
    return ours


def measure(sides: Sequence[Side], user: MatrixClient, rooms: dict[int, str], rounds: int, count: int) -> None:
    """Warm up, then send blocks in turn, the order reversed in every other round."""
    for size, room_id in rooms.items():
        for side in sides:
            send_block(side, user, room_id, count // 2)
        for number in range(rounds):
            for side in sides if number % 2 else reversed(sides):
                side.blocks.setdefault(size, []).append(send_block(side, user, room_id, count))
            print(f"bench: room of {size}, round {number + 1} of {rounds}", flush=True)
    for number in range(rounds):
        for side in sides if number % 2 else reversed(sides):
            block = send_block(side, user, rooms[min(rooms)], count * 2, SENDERS)
            side.rates.append(len(block.times) / block.wall)


def figures(stock: Side, ours: Side) -> dict[str, float]:
    """All figures: medians over blocks, ratios of neighbouring blocks."""
    result: dict[str, float] = {}
    for size in stock.blocks:
        pairs = list(zip(ours.blocks[size], stock.blocks[size], strict=True))
        result[f"cpu_ratio_{size}"] = statistics.median(a.cpu / b.cpu for a, b in pairs)
        result[f"p50_ratio_{size}"] = statistics.median(
            statistics.median(a.times) / statistics.median(b.times) for a, b in pairs
        )
    for side in (stock, ours):
        result[f"{side.name}_per_s"] = statistics.median(side.rates)
        for size, blocks in side.blocks.items():
            times = sorted(time_s for block in blocks for time_s in block.times)
            result[f"{side.name}_cpu_s_per_1000_{size}"] = 1000 * sum(b.cpu for b in blocks) / len(times)
            result[f"{side.name}_p50_ms_{size}"] = 1000 * statistics.median(times)
            result[f"{side.name}_p99_ms_{size}"] = 1000 * times[int(len(times) * 0.99)]
    return {key: result[key] for key in BENCHMARK.meanings if key in result}


def main() -> None:
    """Run the benchmark, keep its figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="blocks for each homeserver and room")
    parser.add_argument("--messages", type=int, default=100, help="messages in a block")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 1000], help="members of the rooms")
    options = parser.parse_args()
    postgres = Postgres(durable=True).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(postgres, Path(folder), options)
    finally:
        postgres.close()


def run(postgres: Postgres, folder: Path, options: argparse.Namespace) -> None:
    """Prepare both homeservers, measure, report."""
    stock = Deployment(folder / "stock", postgres=postgres).start()
    user, rooms = populate(stock, options.sizes)
    stock.stop()
    ours = copy_with_modules(stock, postgres, folder / "ours")
    try:
        sides = [
            Side("stock", stock.start(), postgres, sealed=False),
            Side("ours", ours.start(), postgres, sealed=True),
        ]
        measure(sides, user, rooms, options.rounds, options.messages)
        report(BENCHMARK, figures(*sides))
    finally:
        for server in (ours, stock):
            server.stop()


if __name__ == "__main__":
    main()
