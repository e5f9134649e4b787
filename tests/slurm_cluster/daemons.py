"""The command lines of the programs beside Slurm's own."""

from __future__ import annotations

from slurm_conf import Layout


def munged(layout: Layout) -> list[str]:
    place = layout.directory
    files = [f"--key-file={place}/munge.key", f"--socket={layout.munge}", f"--pid-file={place}/munge.pid"]
    files += [f"--log-file={place}/log/munged", f"--seed-file={place}/state/munge.seed"]
    # By force: it would refuse to work below a directory that only its user may enter.
    return ["munged", "--foreground", "--force", "--origin=127.0.0.1", *files]


def mariadb_install(layout: Layout) -> list[str]:
    # Without a password: only this user can reach its socket.
    return ["mariadb-install-db", *mariadb(layout), "--skip-test-db", "--auth-root-authentication-method=normal"]


def mariadbd(layout: Layout) -> list[str]:
    options = ["--skip-networking", "--skip-name-resolve", f"--socket={layout.mysql}"]
    options += [f"--pid-file={layout.directory}/mysql.pid"]
    # Its data live as long as the cluster: no need to write them through.
    options += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]
    return ["mariadbd", *mariadb(layout), *options]


def mariadb(layout: Layout) -> list[str]:
    return ["--no-defaults", f"--datadir={layout.directory}/mysql", f"--user={layout.user}"]


def mariadb_ping(layout: Layout) -> list[str]:
    return ["mariadb-admin", "--no-defaults", "--user=root", f"--socket={layout.mysql}", "ping"]


def make_data_base(layout: Layout) -> list[str]:
    sql = "create database slurm_acct_db"
    return ["mariadb", "--no-defaults", "--user=root", f"--socket={layout.mysql}", "-e", sql]
